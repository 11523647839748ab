//! The environment is what `process.env` says, in order and complete.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/env", json!(["PATH=/bin", "EMPTY=", "TEXT=a  b=c", "UNI=\u{e9}\u{2713}", "HOME=/nowhere"]));
    let out = bundle.set("/process/args", json!(["env"])).run()?.success()?;
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    ensure!(lines == ["EMPTY=", "HOME=/nowhere", "PATH=/bin", "TEXT=a  b=c", "UNI=\u{e9}\u{2713}"], "{out}");
    Ok(())
}
