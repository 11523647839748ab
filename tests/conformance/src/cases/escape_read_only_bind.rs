//! Root with every capability that it was given cannot write a read-only bind mount of the host.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), "as it was")?;
    let mut bundle = host.bundle()?;
    // With the right to mount, a container of a shared kernel may undo the flag: that is no escape there.
    if host.own_kernel()? {
        bundle.grant(&["CAP_SYS_ADMIN"]);
    }
    let script = "mount -o remount,rw /mnt; mount -o remount,bind,rw /mnt; umount /mnt; echo x >/mnt/file; touch /mnt/new; rm /mnt/file";
    bundle.bind(&shared, "/mnt", &["ro"]).sh(&format!("({script}; mkdir /again; mount --bind /mnt /again; mount -o remount,bind,rw /again; echo x >/again/file) 2>/dev/null; true"))?;
    ensure!(fs::read_to_string(shared.join("file"))? == "as it was" && !shared.join("new").exists());
    Ok(())
}
