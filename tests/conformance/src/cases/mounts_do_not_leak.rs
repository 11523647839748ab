//! Mounts of the container are not the host's.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.grant(&["CAP_SYS_ADMIN"]).script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    container.exec(&["--cap", "CAP_SYS_ADMIN"], &["mount", "-t", "tmpfs", "leak-check", "/tmp"])?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains("leak-check"), "{mounts}");
    drop(container);
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let ours = bundle.path.display().to_string();
    ensure!(!mounts.contains(&ours), "mounts are left: {mounts}");
    Ok(())
}
