//! `exec --detach --pid-file` returns at once; the pid is a live process that ends with what it stands for.

use std::fs;

use anyhow::{Result, ensure};

use crate::container;
use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    rustix::fs::mkfifoat(rustix::fs::CWD, bundle.rootfs("fifo"), 0o666.into())?;
    let pid_file = host.folder().join("exec.pid");
    let path = pid_file.display().to_string();
    container.exec(&["--detach", "--pid-file", &path], &["sh", "-c", "read x </fifo; exit 3"])?.success()?;
    let process = container::watched(fs::read_to_string(&pid_file)?.parse()?)?;
    container.exec_sh("echo go >/fifo")?;
    container::wait_for_end(&process)?;
    let status = container::reap(&process)?;
    ensure!(status == 3, "exited with {status}");
    ensure!(container.status()? == "running");
    Ok(())
}
