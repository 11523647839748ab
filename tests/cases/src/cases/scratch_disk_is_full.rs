//! A full writable layer is the container's own affair: it sees ENOSPC, goes on, and can make room.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

const SCRIPT: &str = "dd if=/dev/urandom of=/fill bs=1M count=64 2>&1 | grep -o 'No space left on device'; \
    rm /fill; echo on > /file && cat /file";

pub fn run(host: &Host) -> Result<Outcome> {
    if !["/sbin/mke2fs", "/usr/sbin/mke2fs"].iter().any(|path| std::path::Path::new(path).exists()) {
        return Ok(Outcome::Skipped("no mke2fs, which makes disks of other sizes than the usual".into()));
    }
    for flags in [&["--storage-opt", "size=16m"][..], &["--scratch", "tmpfs", "--storage-opt", "size=16m"]] {
        let out = host.sh(flags, SCRIPT)?;
        ensure!(out == "No space left on device\non\n", "{flags:?}: {out}");
    }
    host.run(&["--storage-opt", "size=1m"], &["true"])?.exits(125)?.complains("at least 16m")?;
    host.run(&["--storage-opt", "size=many"], &["true"])?.exits(125)?.complains("many")?;
    Ok(Outcome::Passed)
}
