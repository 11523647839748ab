//! A container that was not started can be ended.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut container = host.bundle()?.create()?;
    container.kill("KILL")?;
    container.wait()?;
    ensure!(container.status()? == "stopped");
    container.call(&["delete"])?.success().map(drop)
}
