//! Sysctls of the container's namespaces are set, and the host's stay.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let keys = ["net.ipv4.ip_default_ttl", "kernel.shm_rmid_forced"];
    let file = |key: &str| format!("/proc/sys/{}", key.replace('.', "/"));
    let before: Vec<String> = keys.iter().map(|key| fs::read_to_string(file(key))).collect::<Result<_, _>>()?;
    let mut bundle = host.bundle()?;
    bundle.set("/linux/sysctl", json!({ keys[0]: "77", keys[1]: "1" }));
    let out = bundle.sh(&format!("cat {} {}", file(keys[0]), file(keys[1])))?;
    ensure!(out == "77\n1\n", "{out:?}");
    let after: Vec<String> = keys.iter().map(|key| fs::read_to_string(file(key))).collect::<Result<_, _>>()?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}
