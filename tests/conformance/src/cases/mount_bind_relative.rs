//! A relative source is the bundle's.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    fs::create_dir(bundle.path.join("beside"))?;
    fs::write(bundle.path.join("beside/file"), "beside the root\n")?;
    bundle.bind(Path::new("beside"), "/mnt", &[]);
    // Called in the bundle: runtimes that take the caller's folder for the base do the same there.
    bundle.script("cat /mnt/file").write()?;
    let out = host.command(&["run"]).arg(host.id()).current_dir(&bundle.path).finish()?.success()?;
    ensure!(out == "beside the root\n", "{out:?}");
    Ok(())
}
