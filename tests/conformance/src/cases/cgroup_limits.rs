//! Limits are those of the container's cgroup, as it can see.

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

    bundle.set("/linux/resources/memory", json!({ "limit": 128 << 20 }));
    bundle.set("/linux/resources/pids", json!({ "limit": 77 }));
    bundle.set("/linux/resources/cpu", json!({ "quota": 50_000, "period": 100_000 }));
    let out = bundle.sh("cd /sys/fs/cgroup; cat memory.max pids.max cpu.max")?;
    ensure!(out == "134217728\n77\n50000 100000\n", "{out:?}");
    Ok(())
}
