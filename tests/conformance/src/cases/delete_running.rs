//! What runs is deleted by force only.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    container.call(&["delete"])?.fails()?;
    ensure!(container.status()? == "running", "delete ended it");
    container.call(&["delete", "--force"])?.success()?;
    container.wait()?;
    container.call(&["state"])?.fails()?;
    Ok(())
}
