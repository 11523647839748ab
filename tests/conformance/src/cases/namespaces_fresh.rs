//! A namespace in the list without a path is a new one.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.sh("for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done; echo $$; ls /sys/class/net")?;
    let mut lines = out.lines();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}"))?;
        let theirs = lines.next().context("too few lines")?;
        // With a kernel of its own the number may happen to be the same.
        ensure!(theirs != ours.to_string_lossy() || host.own_kernel()?, "{kind} is the host's: {theirs}");
    }
    ensure!(lines.next() == Some("1"), "not the first process: {out}");
    ensure!(lines.eq(["lo"]), "more than a loopback: {out}");
    Ok(())
}
