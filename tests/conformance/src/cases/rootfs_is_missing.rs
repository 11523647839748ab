//! A root filesystem that is not there is an error of `create`.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/root/path", json!("nothing")).is_refused().map(drop)
}
