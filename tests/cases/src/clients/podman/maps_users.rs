//! User namespaces: ids inside are others on the host, and files are owned as the container sees them.

use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(100_000), Some(100_000))?;
    let volume = format!("{}:/v", dir.path().display());
    let map = ["--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "-v", &volume];
    let script = "id -u; tr -s ' ' </proc/self/uid_map; stat -c %u:%g /etc/passwd /v; touch /v/mine";
    let told = podman.sh(&map, script)?;
    ensure!(told == "0\n 0 100000 65536\n0:0\n0:0", "{told}");
    let made = std::fs::metadata(dir.path().join("mine"))?;
    ensure!((made.uid(), made.gid()) == (100_000, 100_000), "{}:{}", made.uid(), made.gid());
    Ok(())
}
