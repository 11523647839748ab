//! `-v`: folders and single files of the host, writable or not, and named volumes.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("from-host"), "host")?;
    let at = |rest: &str| format!("{}{rest}", dir.path().display());
    let told = engine.sh(&["-v", &at(":/v")], "cat /v/from-host; echo guest >/v/from-guest")?;
    ensure!(told == "host", "{told}");
    ensure!(std::fs::read_to_string(dir.path().join("from-guest"))? == "guest\n");
    let told = engine.sh(&["-v", &at(":/v:ro")], "echo x >/v/refused || echo refused")?;
    ensure!(told == "refused" && !dir.path().join("refused").exists(), "{told}");
    let told = engine.sh(&["-v", &at("/from-host:/alone:ro")], "cat /alone")?;
    ensure!(told == "host", "{told}");

    let volume = engine.host.name();
    engine.sh(&["-v", &format!("{volume}:/data")], "echo kept >/data/file")?;
    let told = engine.sh(&["-v", &format!("{volume}:/data")], "cat /data/file")?;
    ensure!(told == "kept", "{told}");
    engine.ok(&["volume", "rm", &volume])?;
    Ok(())
}
