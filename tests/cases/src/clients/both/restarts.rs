//! `restart` is a new machine over the same disk.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&[])?;
    let boot = || engine.ok(&["exec", &name, "cat", "/proc/sys/kernel/random/boot_id"]);
    let first = boot()?;
    engine.ok(&["exec", &name, "sh", "-c", "echo kept >/file"])?;
    engine.ok(&["restart", "-t", "0", &name])?;
    ensure!(boot()? != first, "the same machine");
    ensure!(engine.ok(&["exec", &name, "cat", "/file"])? == "kept");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
