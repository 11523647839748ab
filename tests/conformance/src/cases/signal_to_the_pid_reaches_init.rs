//! A signal that is sent to the reported pid is the init's.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("trap 'echo got it; exit 42' TERM; echo up; sleep 1000 & while :; do wait; done");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    kill_process(Pid::from_raw(container.pid).context("no pid")?, Signal::TERM)?;
    let (status, out) = container.wait_status()?;
    ensure!(out.contains("got it") && status == 42, "{status}: {out}");
    Ok(())
}
