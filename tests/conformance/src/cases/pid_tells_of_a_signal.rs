//! The reported process tells that a signal ended the init.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    container.kill("KILL")?;
    let (status, _) = container.wait_status()?;
    ensure!(status == 137, "the process exited with {status}");
    Ok(())
}
