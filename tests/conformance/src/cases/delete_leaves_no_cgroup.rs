//! When `delete` returns, the container's cgroup is gone: of one that ended by itself, and of one whose namespaces another
//! container lives on in.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let [first_path, second_path] = [host.id(), host.id()];
    let mut first = host.bundle()?;
    first.set("/linux/cgroupsPath", json!(format!("/{first_path}"))).script("true");
    let mut container = first.create()?;
    if groups(&first_path)?.is_empty() {
        return skip("no cgroup of this name is made here");
    }
    container.run()?;
    container.call(&["delete"])?.success()?;
    ensure_gone(&first_path)?;

    let first = first.script("exec sleep 1000").create()?;
    first.start()?;
    let mut second = host.bundle()?;
    second.set("/linux/cgroupsPath", json!(format!("/{second_path}"))).without_namespace("ipc");
    let path = format!("/proc/{}/ns/ipc", first.pid);
    second.push("/linux/namespaces", json!({ "type": "ipc", "path": path }));
    let second = second.script("exec sleep 1000").create()?;
    second.start()?;
    first.call(&["delete", "--force"])?.success()?;
    ensure_gone(&first_path)?;
    ensure!(second.exec_sh("echo alive")? == "alive\n");
    second.call(&["delete", "--force"])?.success()?;
    ensure_gone(&second_path)
}

fn ensure_gone(name: &str) -> Result<()> {
    let left = groups(name)?;
    ensure!(left.is_empty(), "{left:?} is left");
    Ok(())
}

/// Where there is a group of this name: in a v2 hierarchy, or in those of v1.
fn groups(name: &str) -> io::Result<Vec<PathBuf>> {
    let mount = PathBuf::from("/sys/fs/cgroup");
    let mut found = Vec::new();
    for entry in fs::read_dir(&mount)? {
        found.push(entry?.path().join(name));
    }
    found.push(mount.join(name));
    found.retain(|path| is_cgroup(path));
    Ok(found)
}

/// crun makes a folder of the name where a mixed host's v2 hierarchy is hidden.
fn is_cgroup(path: &Path) -> bool {
    let magic = [0x0027_e0eb, 0x6367_7270];
    rustix::fs::statfs(path).is_ok_and(|found| magic.contains(&found.f_type))
}
