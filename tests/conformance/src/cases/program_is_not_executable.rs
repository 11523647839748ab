//! A program that may not be executed is an error.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    fs::write(bundle.rootfs("data"), "no program")?;
    bundle.set("/process/args", json!(["/data"])).run()?.fails().map(drop)
}
