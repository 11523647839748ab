//! After `run` the container is no more, nor is its cgroup in any hierarchy.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let id = host.id();
    bundle.script("echo hello; echo complaint >&2").set("/linux/cgroupsPath", json!(format!("/{id}")));
    bundle.write()?;
    let finished = host.command(&["run", "--bundle"]).arg(&bundle.path).arg(&id).finish()?;
    ensure!(finished.success()? == "hello\n" && finished.err == "complaint\n", "{finished:?}");
    host.runtime(&["state", &id])?.fails()?;
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(" - cgroup")) {
        let hierarchy = Path::new(line.split(' ').nth(4).unwrap_or_default());
        ensure!(!hierarchy.join(&id).exists(), "{} has a group of the container's left", hierarchy.display());
    }
    Ok(())
}
