//! A namespace that is not in the list is the runtime's own.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.without_namespace("ipc").without_namespace("network");
    let out = bundle.sh("readlink /proc/self/ns/ipc; readlink /proc/self/ns/net")?;
    let ours = [fs::read_link("/proc/self/ns/ipc")?, fs::read_link("/proc/self/ns/net")?];
    let ours: String = ours.iter().map(|link| format!("{}\n", link.display())).collect();
    ensure!(out == ours || host.own_kernel()?, "{out} instead of {ours}");
    Ok(())
}
