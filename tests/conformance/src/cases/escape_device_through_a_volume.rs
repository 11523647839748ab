//! A device node that the workload makes in a volume opens nothing for it.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    let mut bundle = host.bundle()?;
    bundle.grant(&["CAP_MKNOD", "CAP_DAC_OVERRIDE"]).bind(&shared, "/mnt", &["rw"]);
    let script = "mknod /mnt/mem c 1 1; mknod /mnt/disk b 254 0; mknod /mnt/disk2 b 8 0
        for d in mem disk disk2; do head -c 1 /mnt/$d >/dev/null 2>&1 && echo opened $d; done; true";
    let out = bundle.sh(&format!("{{ {script}; }} 2>/dev/null"))?;
    ensure!(out.is_empty(), "{out}");
    Ok(())
}
