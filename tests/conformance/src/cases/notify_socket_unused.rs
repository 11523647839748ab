//! A service manager that waits for a container to be ready does not hold up `start` when the container ends without a word.

use std::fs;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context, Result, anyhow, ensure};

use crate::Host;
use crate::container::{reap, wait_for_end, watched};

pub fn run(host: &Host) -> Result<()> {
    let path = host.folder().join("manager");
    let manager = UnixDatagram::bind(&path)?;
    let mut bundle = host.bundle()?;
    bundle.script("test -S $NOTIFY_SOCKET && touch /tmp/seen").write()?;
    let (id, pid_file) = (host.id(), host.folder().join("pid"));
    let create = host.command(&["create", "--bundle"]).arg(&bundle.path).arg("--pid-file").arg(&pid_file);
    create.arg(&id).env("NOTIFY_SOCKET", &path).finish()?.success()?;
    let process = watched(fs::read_to_string(&pid_file)?.parse()?)?;
    let started = std::thread::scope(|scope| {
        let start = scope.spawn(|| host.command(&["start"]).arg(&id).env("NOTIFY_SOCKET", &path).finish());
        // Nobody else does, and runc waits until it is done.
        wait_for_end(&process).and_then(|()| reap(&process))?;
        start.join().map_err(|_| anyhow!("the caller panicked"))?
    });
    host.runtime(&["delete", "--force", &id])?.success()?;
    started?.success()?;
    ensure!(bundle.rootfs("tmp/seen").exists(), "the container has no socket");
    manager.set_nonblocking(true)?;
    let told = manager.recv(&mut [0; 64]).err().context("the manager was told something")?;
    ensure!(told.kind() == std::io::ErrorKind::WouldBlock, "{told}");
    Ok(())
}
