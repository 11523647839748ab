//! `--log-format json` makes lines that engines read: level, msg and time.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let log = host.folder().join("log");
    let path = log.display().to_string();
    let mut bundle = host.bundle()?;
    bundle.set("/process/args", json!(["no-such-program"])).write()?;
    let id = host.id();
    let command = host.command(&["--log", &path, "--log-format", "json", "run", "--bundle"]).arg(&bundle.path);
    ensure!(command.arg(&id).finish()?.code != 0);
    host.runtime(&["delete", "--force", &id])?;
    let text = fs::read_to_string(&log)?;
    let lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().with_context(|| text.clone())?;
    let told = lines.iter().any(|line| {
        line["level"] == "error" && line["time"].is_string()
            && line["msg"].as_str().is_some_and(|text| text.contains("no-such-program"))
    });
    ensure!(told, "{text}");
    Ok(())
}
