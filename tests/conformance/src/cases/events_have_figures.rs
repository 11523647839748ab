//! `events --stats` has figures of memory, processors and processes.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    host.needs_verb("events")?;
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let out = container.call(&["events", "--stats"])?.success()?;
    let event: Value = serde_json::from_str(&out)?;
    ensure!(event["type"] == "stats" && event["id"] == container.id, "{event}");
    let figure = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no {pointer}: {event}"));
    ensure!(figure("/data/cpu/usage/total")? > 0 && figure("/data/memory/usage/usage")? > 0, "{event}");
    ensure!(figure("/data/pids/current")? >= 1, "{event}");
    Ok(())
}
