//! /dev, /proc and /sys that are links to the host lead nowhere: nothing is mounted or made there.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let outside = host.folder().join("outside");
    fs::create_dir(&outside)?;
    for folder in ["dev", "proc", "sys"] {
        let mut bundle = host.bundle()?;
        fs::remove_dir(bundle.rootfs(folder))?;
        symlink(&outside, bundle.rootfs(folder))?;
        // It may be refused, or the link followed inside the root; either way the host's folder stays as it is.
        let finished = bundle.script("echo inside").run()?;
        ensure!(finished.code != 0 || finished.text() == "inside\n", "{finished:?}");
        ensure!(fs::read_dir(&outside)?.count() == 0, "{folder}: something was made on the host");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&outside.display().to_string()), "{folder}: mounted on the host");
    }
    Ok(())
}
