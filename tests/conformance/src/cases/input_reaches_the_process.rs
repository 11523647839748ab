//! Standard input of `run` is the process's, with its end.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("wc -c; cat; echo end").write()?;
    let command = host.command(&["run", "--bundle"]).arg(&bundle.path).arg(host.id());
    let out = command.input(b"some words").finish()?.success()?;
    ensure!(out == "10\nend\n", "{out:?}");
    Ok(())
}
