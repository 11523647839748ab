//! `top` lists the container's processes, and `stats` what it takes of the host.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&["-m", "128m"])?;
    // podman leaves options of ps to the container's own; docker asks the host's, which knows the process that stands
    // for the container and is called by its command.
    let top = engine.ok(&["top", &name, "-o", "pid,args"])?;
    ensure!(top.lines().count() >= 2 && top.contains("sleep 1000"), "{top}");
    let memory = engine.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &name])?;
    ensure!(memory.contains(" / ") && !memory.starts_with("0B"), "{memory}");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
