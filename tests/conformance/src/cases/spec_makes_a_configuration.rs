//! `spec` writes a configuration that runs, and overwrites none.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let bundle = host.bundle()?;
    let file = bundle.path.join("config.json");
    host.command(&["spec", "--bundle"]).arg(&bundle.path).finish()?.success()?;
    let mut config: Value = serde_json::from_slice(&fs::read(&file)?)?;
    ensure!(config["ociVersion"].as_str().is_some_and(|version| version.starts_with("1.")), "{config}");
    for part in ["/process/args", "/process/cwd", "/root/path", "/linux/namespaces", "/mounts"] {
        ensure!(config.pointer(part).is_some(), "no {part}");
    }
    host.command(&["spec", "--bundle"]).arg(&bundle.path).finish()?.fails()?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "echo it runs"]);
    // This host may hold no cgroup v2, which is another case's matter.
    for list in ["/mounts", "/linux/namespaces"] {
        let keep = |entry: &Value| entry["type"] != "cgroup";
        config.pointer_mut(list).and_then(Value::as_array_mut).context("no list")?.retain(keep);
    }
    config["process"]["env"] = json!(["PATH=/bin"]);
    fs::write(&file, config.to_string())?;
    let out = host.command(&["run", "--bundle"]).arg(&bundle.path).arg(host.id()).finish()?.success()?;
    ensure!(out == "it runs\n", "{out:?}");
    Ok(())
}
