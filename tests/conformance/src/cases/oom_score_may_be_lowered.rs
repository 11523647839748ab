//! A negative `oomScoreAdj` is set.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    host.needs_capability("CAP_SYS_RESOURCE", 24)?;
    let mut bundle = host.bundle()?;
    let out = bundle.set("/process/oomScoreAdj", json!(-321)).sh("cat /proc/self/oom_score_adj")?;
    ensure!(out == "-321\n", "{out:?}");
    Ok(())
}
