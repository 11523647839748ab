//! `state` tells what the specification asks for.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/annotations", json!({ "org.example.key": "some value" }));
    bundle.script("echo up; exec cat /dev/zero >/dev/null");
    let mut container = bundle.create()?;
    let created = container.state()?;
    ensure!(created["id"] == container.id && created["status"] == "created", "{created}");
    ensure!(created["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{created}");
    ensure!(created["pid"] == container.pid, "{created} but pid {}", container.pid);
    let folder = created["bundle"].as_str().context("no bundle")?;
    ensure!(fs::canonicalize(folder)? == fs::canonicalize(&bundle.path)?, "{created}");
    ensure!(created["annotations"]["org.example.key"] == "some value", "{created}");
    container.start()?;
    container.says("up")?;
    ensure!(container.status()? == "running");
    container.kill("KILL")?;
    container.wait()?;
    let stopped = container.state()?;
    ensure!(stopped["status"] == "stopped", "{stopped}");
    ensure!(stopped["pid"].as_i64().unwrap_or(0) == 0, "a stopped container has no pid: {stopped}");
    Ok(())
}
