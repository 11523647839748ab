//! A root file system that is a link works on what it leads to, or is refused; a bundle that is one works.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo linked").write()?;
    let link = host.folder().join("link-to-bundle");
    symlink(&bundle.path, &link)?;
    let finished = host.command(&["run", "--bundle"]).arg(&link).arg(host.id()).finish()?;
    ensure!(finished.success()? == "linked\n");
    let real = host.bundle()?;
    fs::remove_dir_all(bundle.rootfs(""))?;
    symlink(real.rootfs(""), bundle.path.join("rootfs"))?;
    let finished = bundle.run()?;
    ensure!(finished.code != 0 || finished.text() == "linked\n", "{finished:?}");
    Ok(())
}
