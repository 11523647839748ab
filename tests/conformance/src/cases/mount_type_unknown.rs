//! A kind of file system that does not exist is an error.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let mount = json!({ "destination": "/mnt", "type": "no-such-fs", "source": "none" });
    bundle.push("/mounts", mount).is_refused().map(drop)
}
