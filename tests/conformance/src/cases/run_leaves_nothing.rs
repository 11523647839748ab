//! After `run` the container is no more.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo hello; echo complaint >&2");
    bundle.write()?;
    let id = host.id();
    let finished = host.command(&["run", "--bundle"]).arg(&bundle.path).arg(&id).finish()?;
    ensure!(finished.success()? == "hello\n" && finished.err == "complaint\n", "{finished:?}");
    host.runtime(&["state", &id])?.fails().map(drop)
}
