//! `state` of an unknown id says the words that engines look for.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let finished = host.runtime(&["state", "nobody"])?;
    let told = finished.fails()?.err.to_lowercase();
    ensure!(told.contains("does not exist") || told.contains("no such file or directory"), "{told}");
    Ok(())
}
