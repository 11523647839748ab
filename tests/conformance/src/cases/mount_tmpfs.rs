//! A tmpfs has the size and the mode that were asked for.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let options = ["size=1m", "mode=1750", "nosuid"];
    bundle.push("/mounts", json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options }));
    let out = bundle.sh(
        "stat -c %a /scratch; head -c 900000 /dev/zero >/scratch/a && echo fits
         head -c 900000 /dev/zero >/scratch/b 2>/dev/null || echo full; stat -f -c %T /scratch",
    )?;
    ensure!(out == "1750\nfits\nfull\ntmpfs\n", "{out:?}");
    ensure!(fs::read_dir(bundle.rootfs("scratch"))?.count() == 0);
    Ok(())
}
