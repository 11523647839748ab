//! An id that would be a path is refused.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let bundle = host.bundle()?;
    bundle.write()?;
    for id in ["../up", "a/b", "..", "."] {
        let finished = host.command(&["create", "--bundle"]).arg(&bundle.path).arg(id).finish()?;
        finished.fails()?;
    }
    ensure!(!host.folder().join("up").exists());
    Ok(())
}
