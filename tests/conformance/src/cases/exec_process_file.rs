//! `exec --process` takes the whole process from a file.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let file = host.folder().join("process.json");
    let process = json!({
        "user": { "uid": 1000, "gid": 1000 },
        "args": ["sh", "-c", "id -u; pwd; echo $WORD; exit 4"],
        "env": ["PATH=/bin", "WORD=of the file"],
        "cwd": "/tmp",
    });
    fs::write(&file, process.to_string())?;
    let finished = host.command(&["exec", "--process"]).arg(&file).arg(&container.id).finish()?;
    finished.exits(4)?;
    ensure!(finished.text() == "1000\n/tmp\nof the file\n", "{finished:?}");
    Ok(())
}
