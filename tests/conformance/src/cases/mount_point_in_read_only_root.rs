//! What is missing of a mount's target is made, also in a root that is read-only for the container.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let file = host.folder().join("file");
    fs::write(&file, "shown\n")?;
    let mut bundle = host.bundle()?;
    bundle.set("/root/readonly", json!(true)).bind(&file, "/made/file", &["ro"]);
    bundle.push("/mounts", json!({ "destination": "/made/deep/place", "type": "tmpfs", "source": "tmpfs" }));
    let out = bundle.sh("touch /made/deep/place/x && cat /made/file; mkdir /made/other 2>/dev/null || echo refused")?;
    ensure!(out == "shown\nrefused\n", "{out:?}");
    ensure!(bundle.rootfs("made/file").exists() && !bundle.rootfs("made/other").exists());
    Ok(())
}
