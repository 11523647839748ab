//! A configuration that cannot be read is refused and leaves nothing.

use std::fs;

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let bundle = host.bundle()?;
    let id = host.id();
    for text in ["", "{", "[]", r#"{"ociVersion": 5}"#, "\0\0\0"] {
        fs::write(bundle.path.join("config.json"), text)?;
        host.command(&["create", "--bundle"]).arg(&bundle.path).arg(&id).finish()?.fails()?;
    }
    host.runtime(&["state", &id])?.fails().map(drop)
}
