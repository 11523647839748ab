//! What `exec` starts is in all of the init's namespaces.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let out = container.exec_sh(&format!("readlink /proc/1/ns/{kind}; readlink /proc/self/ns/{kind}"))?;
        let links: Vec<&str> = out.lines().collect();
        ensure!(links.len() == 2 && links.first() == links.last(), "{kind}: {out}");
    }
    ensure!(container.exec_sh("cat /proc/1/cmdline")?.starts_with("sleep"));
    Ok(())
}
