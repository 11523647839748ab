//! `domainname` is the container's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.set("/domainname", json!("some.domain")).sh("cat /proc/sys/kernel/domainname")?;
    ensure!(out == "some.domain\n", "{out:?}");
    Ok(())
}
