//! `exec --user` is a uid and a gid.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let out = container.exec(&["--user", "1000:1001"], &["sh", "-c", "id -u; id -g"])?.success()?;
    ensure!(out == "1000\n1001\n", "{out:?}");
    Ok(())
}
