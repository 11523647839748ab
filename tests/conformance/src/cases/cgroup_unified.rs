//! `unified` writes files of cgroup v2 as they are named.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.push("/mounts", json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    bundle.push("/linux/namespaces", json!({ "type": "cgroup" }));
    if bundle.sh("test -e /sys/fs/cgroup/cgroup.controllers || echo none")? == "none\n" {
        return skip("the container has no cgroup v2: this host has not");
    }

    bundle.set("/linux/resources/unified", json!({ "memory.high": "67108864", "pids.max": "55" }));
    let out = bundle.sh("cd /sys/fs/cgroup; cat memory.high pids.max")?;
    ensure!(out == "67108864\n55\n", "{out:?}");
    Ok(())
}
