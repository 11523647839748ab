//! A paused container takes no exec until it is resumed.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&[])?;
    engine.ok(&["pause", &name])?;
    let state = engine.ok(&["inspect", "-f", "{{.State.Status}}", &name])?;
    ensure!(state == "paused", "{state}");
    engine.any(&["exec", &name, "true"])?.exits(engine.kind.exec_refused)?;
    engine.ok(&["unpause", &name])?;
    engine.ok(&["exec", &name, "true"])?;
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
