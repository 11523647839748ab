//! A bind mount is the host's folder, both ways.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("from-host"), "host\n")?;
    let mut bundle = host.bundle()?;
    let out = bundle.bind(&shared, "/mnt/deep/shared", &["rw"]).sh("cd /mnt/deep/shared; cat from-host; echo container >made")?;
    ensure!(out == "host\n", "{out:?}");
    ensure!(fs::read_to_string(shared.join("made"))? == "container\n");
    ensure!(fs::read_dir(bundle.rootfs("mnt/deep/shared"))?.count() == 0, "it was written to the root filesystem");
    Ok(())
}
