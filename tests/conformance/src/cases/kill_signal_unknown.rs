//! A signal that does not exist is an error, and none is sent.

use anyhow::{Result, ensure};

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let finished = host.runtime(&["kill", &container.id, "NOSIGNAL"])?;
    ensure!(container.status()? == "running");
    if finished.code == 0 {
        return skip("the runtime takes it and sends nothing");
    }
    finished.fails().map(drop)
}
