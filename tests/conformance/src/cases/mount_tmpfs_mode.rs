//! A tmpfs without a mode has the kernel's own where its mount point had to be made, which is an ordinary folder.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let mount = json!({ "destination": "/new/deeper", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] });
    let out = bundle.push("/mounts", mount).sh("stat -c %a /new/deeper; stat -f -c %T /new/deeper")?;
    ensure!(out == "1777\ntmpfs\n", "{out:?}");
    for path in ["new", "new/deeper"] {
        let mode = fs::metadata(bundle.rootfs(path))?.permissions().mode();
        ensure!(mode & 0o022 == 0, "{path} was made with the mode {mode:o}");
    }
    Ok(())
}
