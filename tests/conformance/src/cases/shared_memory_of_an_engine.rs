//! Engines bind a tmpfs of theirs over `/dev/shm`: it is memory of that size and owner, which containers of one IPC namespace
//! share, and which is gone with them.

use std::fs;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::json;

use crate::{Host, skip};

/// A mount that ends with the case.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // A folder that stays behind is all that comes of a failure.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

pub fn run(host: &Host) -> Result<()> {
    let folder = host.folder().join("shm");
    fs::create_dir(&folder)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match mount("shm", &folder, "tmpfs", flags, Some(c"size=1m,mode=1770,gid=5")) {
        Err(Errno::PERM) => return skip("only root mounts a tmpfs"),
        other => other?,
    }
    let mounted = Mounted(folder);
    let mut bundle = host.bundle()?;
    bundle.bind(&mounted.0, "/dev/shm", &["nosuid", "nodev", "noexec"]).script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    let told = container.exec_sh(
        "cd /dev/shm; stat -f -c %T .; stat -c %a:%g .; grep ' /dev/shm ' /proc/mounts | tail -n 1 | grep -o noexec
         head -c 900000 /dev/zero >a && echo fits; head -c 900000 /dev/zero >b 2>/dev/null || echo full; echo told >b",
    )?;
    ensure!(told == "tmpfs\n1770:5\nnoexec\nfits\nfull\n", "{told}");

    let mut second = host.bundle()?;
    second.without_namespace("ipc").bind(&mounted.0, "/dev/shm", &["nosuid", "nodev", "noexec"]);
    second.push("/linux/namespaces", json!({ "type": "ipc", "path": format!("/proc/{}/ns/ipc", container.pid) }));
    let told = second.sh("cat /dev/shm/b; rm /dev/shm/b")?;
    ensure!(told == "told\n", "{told}");
    let told = container.exec_sh("ls /dev/shm")?;
    ensure!(told == "a\n", "{told}");
    Ok(())
}
