//! A hook that takes longer than its timeout is a hook that failed.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "timeout": 1 }]);
    bundle.set("/hooks/createRuntime", hook).is_refused().map(drop)
}
