//! startContainer runs in the container after `start` and before the process.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let script = "test $(hostname) = conformance && cat >/state && echo hook >>/log";
    bundle.set("/hooks/startContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] }]));
    bundle.script("echo process >>/log");
    let mut container = bundle.create()?;
    ensure!(!bundle.rootfs("log").exists(), "it ran at create");
    container.run()?;
    ensure!(fs::read_to_string(bundle.rootfs("log"))? == "hook\nprocess\n");
    let state: Value = serde_json::from_slice(&fs::read(bundle.rootfs("state"))?)?;
    ensure!(state["id"] == container.id, "{state}");
    Ok(())
}
