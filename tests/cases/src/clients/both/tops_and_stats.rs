//! `top` lists the container's processes, and `stats` what it takes of the host.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&["-m", "128m"])?;
    // podman finds the container's processes; docker asks the host's ps of the one that stands for them, which names the
    // container's command. With options of ps podman asks the container's own.
    for options in [&[][..], &["-o", "pid,args"]] {
        let top = engine.ok(&[&["top", &name], options].concat())?;
        ensure!(top.lines().count() >= 2 && top.contains("sleep 1000"), "{top}");
    }
    let memory = engine.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", &name])?;
    ensure!(memory.contains(" / ") && !memory.starts_with("0B"), "{memory}");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
