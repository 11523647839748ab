//! An id belongs to one container, which a second `create` does not harm.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    let again = host.command(&["create", "--bundle"]).arg(&bundle.path).arg(&container.id).finish()?;
    again.fails()?;
    ensure!(container.status()? == "created");
    container.start()?;
    container.says("up")?;
    let running = host.command(&["run", "--bundle"]).arg(&bundle.path).arg(&container.id).finish()?;
    running.fails()?;
    ensure!(container.status()? == "running");
    Ok(())
}
