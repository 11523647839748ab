//! `process.ioPriority` is the process's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 }));
    let out = bundle.set("/process/args", json!(["ionice"])).run()?.success()?;
    if out.starts_with("none") {
        return skip("the runtime is older than the field and passes it over");
    }
    ensure!(out.trim() == "best-effort: prio 6", "{out:?}");
    Ok(())
}
