//! SIGKILL to the reported pid ends the container, which can then be deleted.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    kill_process(Pid::from_raw(container.pid).context("no pid")?, Signal::KILL)?;
    container.wait()?;
    ensure!(container.status()? == "stopped");
    container.call(&["delete"])?.success().map(drop)
}
