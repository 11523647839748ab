//! `create --pid-file` writes the pid that `state` tells, and nothing else.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let bundle = host.bundle()?;
    let container = bundle.create()?;
    let text = fs::read_to_string(host.folder().join(format!("{}.pid", container.id)))?;
    ensure!(container.state()?["pid"] == text.parse::<i64>()?, "{text:?}");
    Ok(())
}
