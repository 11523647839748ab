//! A bind mount of nothing is an error that names it.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let error = bundle.bind(&host.folder().join("no-such-source"), "/mnt", &[]).is_refused()?;
    ensure!(error.contains("no-such-source"), "{error}");
    Ok(())
}
