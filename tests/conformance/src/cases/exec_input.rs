//! Standard input of `exec` is the process's, with its end.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let out = host.command(&["exec"]).arg(&container.id).arg("wc").arg("-c").input(b"12345").finish()?.success()?;
    ensure!(out.trim() == "5", "{out:?}");
    Ok(())
}
