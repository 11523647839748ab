//! A `/dev` that is a read-only tmpfs has its devices and what is mounted in it all the same.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let mounts = bundle.config["mounts"].as_array_mut().context("no mounts")?;
    let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").context("no /dev")?;
    dev["options"] = json!(["nosuid", "mode=755", "size=65536k", "ro"]);
    let out = bundle.sh(
        "echo gone >/dev/null; ls -d /dev/pts /dev/zero; grep -c ' /dev/pts ' /proc/mounts
         touch /dev/file 2>/dev/null || echo read-only",
    )?;
    ensure!(out == "/dev/pts\n/dev/zero\n1\nread-only\n", "{out:?}");
    Ok(())
}
