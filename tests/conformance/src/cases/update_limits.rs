//! `update` changes limits while the container runs, by flags and by a file.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    host.needs_verb("update")?;
    let mut bundle = host.bundle()?;
    bundle.push("/mounts", json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    bundle.push("/linux/namespaces", json!({ "type": "cgroup" }));
    if bundle.sh("test -e /sys/fs/cgroup/cgroup.controllers || echo none")? == "none\n" {
        return skip("the container has no cgroup v2: this host has not");
    }

    bundle.set("/linux/resources/memory", json!({ "limit": 128 << 20 }));
    bundle.set("/linux/resources/pids", json!({ "limit": 77 }));
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    container.call(&["update", "--pids-limit", "44"])?.success()?;
    ensure!(container.exec_sh("cat /sys/fs/cgroup/pids.max")? == "44\n");
    let file = host.folder().join("resources.json");
    fs::write(&file, json!({ "memory": { "limit": 96 << 20 } }).to_string())?;
    host.command(&["update", "--resources"]).arg(&file).arg(&container.id).finish()?.success()?;
    let out = container.exec_sh("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max")?;
    ensure!(out == "100663296\n44\n", "{out:?}");
    Ok(())
}
