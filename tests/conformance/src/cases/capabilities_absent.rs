//! Without a list the process has no capability at all.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    if let Some(process) = bundle.config["process"].as_object_mut() {
        process.remove("capabilities");
    }
    let status = bundle.set("/process/args", json!(["cat", "/proc/self/status"])).run()?.success()?;
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        ensure!(mask(&status, set)? == 0, "{status}");
    }
    Ok(())
}

/// A capability set of the process that prints it.
fn mask(status: &str, set: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).context("no such set")?;
    Ok(u64::from_str_radix(line.trim(), 16)?)
}
