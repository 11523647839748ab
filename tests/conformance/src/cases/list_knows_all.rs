//! `list` has each container with its state, as a table, as JSON, as ids.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let second = host.bundle()?.create()?;
    let text = host.runtime(&["list", "--format", "json"])?.success()?;
    let listed: Value = serde_json::from_str(&text)?;
    let listed = listed.as_array().context("no list")?;
    ensure!(listed.len() == 2, "{text}");
    for (one, status) in [(&container, "running"), (&second, "created")] {
        let found = listed.iter().find(|entry| entry["id"] == one.id).context("one is not listed")?;
        ensure!(found["status"] == status && found["pid"] == one.pid && found["bundle"].is_string(), "{found}");
    }
    let table = host.runtime(&["list"])?.success()?;
    ensure!(table.contains(&container.id) && table.contains("running") && table.lines().count() == 3, "{table}");
    let mut ids: Vec<String> = host.runtime(&["list", "-q"])?.success()?.lines().map(str::to_owned).collect();
    ids.sort();
    let mut expected = [container.id.clone(), second.id.clone()];
    expected.sort();
    ensure!(ids == expected, "{ids:?}");
    Ok(())
}
