//! `cp` into and out of a running container, which sees files at once.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [give, take] = ["give", "take"].map(|name| dir.path().join(name));
    std::fs::write(&give, "given")?;
    let name = engine.sleeper(&[])?;
    // Looked for before: an answer that is remembered would be wrong afterwards.
    engine.any(&["exec", &name, "cat", "/tmp/given"])?.exits(1)?;
    engine.ok(&["cp", &give.display().to_string(), &format!("{name}:/tmp/given")])?;
    ensure!(engine.ok(&["exec", &name, "cat", "/tmp/given"])? == "given");
    engine.ok(&["exec", &name, "sh", "-c", "echo taken >/tmp/taken"])?;
    engine.ok(&["cp", &format!("{name}:/tmp/taken"), &take.display().to_string()])?;
    ensure!(std::fs::read_to_string(&take)? == "taken\n");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
