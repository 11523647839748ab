//! A program that is not there is an error that names it.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let finished = bundle.set("/process/args", json!(["no-such-program"])).run()?;
    finished.fails()?;
    ensure!(finished.err.contains("no-such-program"), "{}", finished.err);
    Ok(())
}
