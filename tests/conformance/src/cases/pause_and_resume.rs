//! A paused container does nothing until it is resumed.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; while read line; do echo heard $line; done <>/fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, bundle.rootfs("fifo"), 0o666.into())?;
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    container.exec_sh("echo one >/fifo")?;
    container.says("heard one")?;
    container.call(&["pause"])?.success()?;
    ensure!(container.status()? == "paused");
    // The signal waits with it.
    container.kill("TERM")?;
    ensure!(container.status()? == "paused");
    container.call(&["resume"])?.success()?;
    container.kill("KILL")?;
    container.wait()?;
    ensure!(container.status()? == "stopped");
    Ok(())
}
