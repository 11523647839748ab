//! A limit above the runtime's own is set.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    host.needs_capability("CAP_SYS_RESOURCE", 24)?;
    let mut bundle = host.bundle()?;
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_MEMLOCK", "soft": 1u64 << 40, "hard": 1u64 << 41 }]));
    let out = bundle.sh("grep 'locked memory' /proc/self/limits")?;
    ensure!(out.contains("1099511627776") && out.contains("2199023255552"), "{out}");
    Ok(())
}
