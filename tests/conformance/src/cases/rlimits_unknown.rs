//! A limit that does not exist is refused.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_NOTHING", "soft": 1, "hard": 1 }])).is_refused().map(drop)
}
