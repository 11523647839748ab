//! A single file is mounted over one that is there or is made.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let folder = host.folder().join("private");
    fs::create_dir(&folder)?;
    fs::write(folder.join("file"), "shown\n")?;
    fs::write(folder.join("other"), "not shown\n")?;
    let mut bundle = host.bundle()?;
    fs::write(bundle.rootfs("etc/there"), "hidden\n")?;
    bundle.bind(&folder.join("file"), "/etc/there", &["ro"]).bind(&folder.join("file"), "/etc/new/file", &["rw"]);
    let out = bundle.sh("cat /etc/there; echo more >>/etc/new/file; ls /etc/new")?;
    ensure!(out == "shown\nfile\n", "{out:?}");
    ensure!(fs::read_to_string(folder.join("file"))? == "shown\nmore\n");
    ensure!(fs::read_to_string(bundle.rootfs("etc/there"))? == "hidden\n");
    Ok(())
}
