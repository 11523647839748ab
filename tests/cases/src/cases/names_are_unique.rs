//! Two containers cannot have one name; the first is not disturbed by the second's attempt.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let id = host.dewar(&["create", "--name", &name, "busybox", "echo", "first"]).finish()?.success()?;
    host.dewar(&["run", "--rm", "--name", &name, "busybox", "true"]).finish()?.exits(125)?.complains("already in use")?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &name]).finish()?.success()?;
    ensure!(out.contains(id.trim()), "{out}");
    let out = host.dewar(&["start", "-a", &name]).finish()?.success()?;
    ensure!(out == "first\n", "{out}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    host.dewar(&["run", "--rm", "--name", "bad/name", "busybox", "true"]).finish()?.exits(125)?.complains("bad/name")?;
    Ok(Outcome::Passed)
}
