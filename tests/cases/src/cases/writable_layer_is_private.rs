//! What a container writes is its own: on the disk and on the tmpfs, files, deletions and directories.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let script = "echo mine > /made && rm /etc/group && mkdir -p /etc/new && cat /made && ls /etc/new && test ! -e /etc/group && grep -c overlay /proc/mounts";
    for flags in [&["--scratch", "disk"][..], &["--scratch", "tmpfs"]] {
        ensure!(host.sh(flags, script)?.starts_with("mine\n"));
        let out = host.sh(flags, "ls /made /etc/new 2>/dev/null; cat /etc/group | head -1")?;
        ensure!(out.starts_with("root:"), "a container sees what another wrote: {out}");
    }
    Ok(Outcome::Passed)
}
