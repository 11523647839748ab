//! `--version` names the runtime and the specification.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let out = host.runtime(&["--version"])?.success()?;
    ensure!(out.contains("version") && out.contains("spec"), "{out}");
    Ok(())
}
