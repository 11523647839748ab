//! `linux.personality` is the process's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.set("/linux/personality", json!({ "domain": "LINUX32" })).sh("uname -m; cat /proc/self/personality")?;
    ensure!(out.starts_with("i686\n"), "{out:?}");
    Ok(())
}
