//! A masked or read-only path that is a link to the host does nothing there.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let outside = host.folder().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "as it was")?;
    for list in ["maskedPaths", "readonlyPaths"] {
        let mut bundle = host.bundle()?;
        symlink(&outside, bundle.rootfs("folder"))?;
        symlink(outside.join("file"), bundle.rootfs("file"))?;
        bundle.push(&format!("/linux/{list}"), json!("/folder")).push(&format!("/linux/{list}"), json!("/file"));
        let finished = bundle.script("echo inside").run()?;
        ensure!(finished.code != 0 || finished.text() == "inside\n", "{finished:?}");
        ensure!(fs::read_to_string(outside.join("file"))? == "as it was");
        fs::write(outside.join("new"), "").context("the host's folder is read-only now")?;
    }
    Ok(())
}
