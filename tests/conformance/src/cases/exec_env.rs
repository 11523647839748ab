//! `exec --env` adds to the environment of the container's process.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.push("/process/env", json!("INHERITED=yes")).script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    ensure!(container.exec_sh("echo $INHERITED")? == "yes\n");
    let finished = container.exec(&["--env", "ADDED=a b"], &["/bin/sh", "-c", "echo $ADDED $INHERITED"])?;
    // Some take it for the whole environment.
    let out = finished.success()?;
    ensure!(out == "a b yes\n" || out == "a b\n", "{out:?}");
    let finished = container.exec(&["--env", "INHERITED=no"], &["/bin/sh", "-c", "echo $INHERITED; env"])?;
    let out = finished.success()?;
    ensure!(out.starts_with("no\n") && !out.contains("INHERITED=yes"), "{out:?}");
    Ok(())
}
