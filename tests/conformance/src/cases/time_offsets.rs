//! `timeOffsets` move the clocks of a time namespace.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.push("/linux/namespaces", json!({ "type": "time" }));
    bundle.set("/linux/timeOffsets", json!({ "boottime": { "secs": 1_000_000 }, "monotonic": { "secs": 2_000_000 } }));
    let (finished, mut container) = bundle.script("cat /proc/uptime").try_create(&[])?;
    if finished.code != 0 && !host.own_kernel()? {
        return skip(format!("refused: {}", finished.err.trim()));
    }
    finished.success()?;
    let out = container.run()?;
    let uptime: f64 = out.split_whitespace().next().context("no uptime")?.parse()?;
    if uptime < 1_000_000.0 {
        return skip("the runtime is older than the field and passes it over");
    }
    ensure!(uptime < 2_000_000.0 + 10_000_000.0, "{out}");
    Ok(())
}
