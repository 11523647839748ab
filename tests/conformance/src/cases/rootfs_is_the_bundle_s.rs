//! What the container writes is in the bundle, and what the host writes is in the container.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    container.exec_sh("echo inside >/made; mkdir -p /var/deep; chmod 4711 /made")?;
    ensure!(fs::read_to_string(bundle.rootfs("made"))? == "inside\n");
    ensure!(fs::metadata(bundle.rootfs("made"))?.permissions().mode() & 0o7777 == 0o4711);
    fs::write(bundle.rootfs("var/deep/from-outside"), "outside\n")?;
    ensure!(container.exec_sh("cat /var/deep/from-outside")? == "outside\n");
    fs::write(bundle.rootfs("made"), "changed\n")?;
    ensure!(container.exec_sh("cat /made")? == "changed\n");
    fs::remove_file(bundle.rootfs("made"))?;
    ensure!(container.exec(&[], &["test", "-e", "/made"])?.code == 1, "a removed file is still there");
    Ok(())
}
