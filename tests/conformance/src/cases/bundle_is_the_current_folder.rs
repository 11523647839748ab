//! Without `--bundle` the bundle is where the runtime is called.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo here").write()?;
    let out = host.command(&["run"]).arg(host.id()).current_dir(&bundle.path).finish()?.success()?;
    ensure!(out == "here\n", "{out:?}");
    Ok(())
}
