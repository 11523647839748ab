//! `ps` has a list of the host's pids and a table that names the processes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    host.needs_verb("ps")?;
    let out = container.call(&["ps", "--format", "json"])?.success()?;
    let pids: Value = serde_json::from_str(&out)?;
    let pids = pids.as_array().context("no list")?;
    // Numbers are the host's: engines look them up there.
    ensure!(pids.iter().any(|pid| pid.as_i64() == Some(container.pid.into())), "{out}");
    let table = container.call(&["ps"])?.success()?;
    ensure!(table.lines().next().is_some_and(|head| head.contains("PID")), "{table}");
    if table.lines().count() == pids.len() + 1 && !table.contains("sleep") {
        return skip("the runtime's table holds no commands");
    }
    ensure!(table.contains("sleep"), "{table}");
    Ok(())
}
