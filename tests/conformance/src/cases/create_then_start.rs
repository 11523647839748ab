//! What `create` made waits until `start`: nothing of the process runs before.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo started > /mark; echo out");
    let mut container = bundle.create()?;
    ensure!(container.status()? == "created");
    ensure!(!bundle.rootfs("mark").exists(), "the process ran before start");
    let out = container.run()?;
    ensure!(out == "out\n", "{out:?}");
    ensure!(fs::read_to_string(bundle.rootfs("mark"))? == "started\n");
    ensure!(container.status()? == "stopped");
    container.call(&["delete"])?.success()?;
    container.call(&["state"])?.fails()?;
    Ok(())
}
