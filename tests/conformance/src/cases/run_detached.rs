//! `run --detach` returns while the container runs.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("exec sleep 1000").write()?;
    let id = host.id();
    let pid_file = host.folder().join("pid");
    let command = host.command(&["run", "--detach", "--pid-file"]).arg(&pid_file);
    command.arg("--bundle").arg(&bundle.path).arg(&id).finish()?.success()?;
    let state: Value = serde_json::from_str(&host.runtime(&["state", &id])?.success()?)?;
    let pid: i64 = fs::read_to_string(&pid_file)?.parse()?;
    host.runtime(&["delete", "--force", &id])?.success()?;
    ensure!(state["status"] == "running" && state["pid"] == pid, "{state} and pid {pid}");
    Ok(())
}
