//! A container starts once.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    container.call(&["start"])?.fails()?;
    ensure!(container.status()? == "running", "the second start changed it");
    container.kill("KILL")?;
    container.wait()?;
    container.call(&["start"])?.fails()?;
    Ok(())
}
