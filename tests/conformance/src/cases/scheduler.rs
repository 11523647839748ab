//! `process.scheduler` is the process's policy and nice value.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }));
    let out = bundle.sh("cat /proc/self/stat")?;
    let fields: Vec<&str> = out.rsplit_once(')').context("no stat")?.1.split_whitespace().collect();
    // proc(5): nice is field 19, policy field 41; the first two are before the bracket.
    let (nice, policy) = (fields.get(16), fields.get(38));
    if (nice, policy) == (Some(&"0"), Some(&"0")) && !features(host)?.contains("scheduler") {
        return skip("the runtime is older than the field and passes it over");
    }
    ensure!((nice, policy) == (Some(&"5"), Some(&"3")), "nice {nice:?}, policy {policy:?}");
    Ok(())
}

/// What the runtime says of itself; empty when it does not.
fn features(host: &Host) -> Result<String> {
    Ok(host.runtime(&["features"])?.text())
}
