//! A sysctl that does not exist is an error.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/sysctl", json!({ "net.no.such.key": "1" })).is_refused().map(drop)
}
