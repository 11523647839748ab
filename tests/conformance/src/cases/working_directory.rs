//! The process starts in `process.cwd`, which has to be absolute.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    fs::create_dir(bundle.rootfs("home/work here"))?;
    ensure!(bundle.set("/process/cwd", json!("/home/work here")).sh("pwd")? == "/home/work here\n");
    Ok(())
}
