//! `top` lists the container's processes, and `stats` what it takes of the host.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&["-m", "128m"])?;
    let top = engine.ok(&["top", &name])?;
    ensure!(top.contains("sleep 1000"), "{top}");
    let memory = engine.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &name])?;
    ensure!(memory.contains("iB") && !memory.starts_with("0B"), "{memory}");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
