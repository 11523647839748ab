//! A program that is not there is an error of `exec`, which does no harm.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let finished = container.exec(&[], &["no-such-program"])?;
    finished.fails()?;
    ensure!(finished.err.contains("no-such-program"), "{}", finished.err);
    ensure!(container.status()? == "running");
    Ok(())
}
