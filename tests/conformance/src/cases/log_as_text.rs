//! `--log` takes what is complained about.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let log = host.folder().join("log");
    let path = log.display().to_string();
    let finished = host.runtime(&["--log", &path, "state", "nobody"])?;
    ensure!(finished.code != 0);
    let text = fs::read_to_string(&log)?;
    ensure!(text.contains("nobody"), "{text:?}");
    Ok(())
}
