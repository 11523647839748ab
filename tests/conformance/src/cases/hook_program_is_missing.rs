//! A hook whose program is not there makes `create` fail.

use anyhow::Result;
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/hooks/createRuntime", json!([{ "path": "/no/such/hook" }])).is_refused().map(drop)
}
