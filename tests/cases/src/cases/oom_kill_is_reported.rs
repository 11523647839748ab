//! A container that takes more memory than it may is killed, and that is told.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let args = ["run", "--name", &name, "-m", "32m", "--memory-swap", "32m", "busybox", "tail", "/dev/zero"];
    host.dewar(&args).finish()?.exits(137)?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &name]).finish()?.success()?;
    ensure!(out.contains("\"OOMKilled\":true"), "{out}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
