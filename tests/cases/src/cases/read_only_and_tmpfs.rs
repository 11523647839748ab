//! `--read-only` holds even against root, and `--tmpfs` gives a place to write.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let script = "touch /x 2>&1; echo $?; echo ok > /tmp/y && cat /tmp/y; grep ' /tmp ' /proc/mounts";
    let out = host.sh(&["--read-only", "--tmpfs", "/tmp:size=1m,mode=1777"], script)?;
    ensure!(out.contains("Read-only file system") && out.contains("\n1\nok\n"), "{out}");
    ensure!(out.contains("size=1024k"), "{out}");
    Ok(Outcome::Passed)
}
