//! `exec --cwd` is where the process starts.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let out = container.exec(&["--cwd", "/home"], &["pwd"])?.success()?;
    ensure!(out == "/home\n", "{out:?}");
    let missing = container.exec(&["--cwd", "/not/there"], &["pwd"])?;
    ensure!(missing.success().is_err() && !bundle.rootfs("not").exists());
    Ok(())
}
