//! A paused container does nothing, refuses exec, and goes on when unpaused.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    host.dewar(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).finish()?.success()?;
    host.dewar(&["pause", &name]).finish()?.success()?;
    let filter = format!("name={name}");
    let out = host.dewar(&["ps", "--filter", &filter, "--format", "{{.State}}"]).finish()?.success()?;
    ensure!(out.trim() == "paused", "{out}");
    host.dewar(&["exec", &name, "true"]).finish()?.exits(1)?.complains("paused")?;
    host.dewar(&["pause", &name]).finish()?.exits(1)?;
    host.dewar(&["unpause", &name]).finish()?.success()?;
    host.dewar(&["exec", &name, "true"]).finish()?.exits(0)?;
    host.dewar(&["pause", &name]).finish()?.success()?;
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
