//! A stopped container starts again with what it had written.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "echo run >> /count; cat /count | wc -l";
    host.dewar(&["create", "--name", &name, "busybox", "sh", "-c", script]).finish()?.success()?;
    for expected in ["1", "2", "3"] {
        let out = host.dewar(&["start", "-a", &name]).finish()?.success()?;
        ensure!(out.trim() == expected, "{out}");
    }
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
