//! The process has no descriptor but its three.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.set("/process/args", json!(["ls", "/proc/self/fd"])).run()?.success()?;
    // The fourth is the listing's own.
    ensure!(out == "0\n1\n2\n3\n", "{out:?}");
    Ok(())
}
