//! The pid that `create` reports is a process that ends with the init and exits as it did.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; read x </fifo; exit 23");
    rustix::fs::mkfifoat(rustix::fs::CWD, bundle.rootfs("fifo"), 0o666.into())?;
    let mut container = bundle.create()?;
    ensure!(Path::new(&format!("/proc/{}", container.pid)).exists());
    container.start()?;
    container.says("up")?;
    ensure!(Path::new(&format!("/proc/{}", container.pid)).exists());
    // It may be killed with the container that it ends.
    container.exec(&[], &["sh", "-c", "echo go >/fifo"])?;
    let (status, _) = container.wait_status()?;
    ensure!(status == 23, "the process exited with {status}");
    Ok(())
}
