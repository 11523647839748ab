//! `--read-only` is, except where a `--tmpfs` is mounted.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let script = "touch /file || echo refused; touch /scratch/file && echo taken; grep ' /scratch ' /proc/mounts";
    let told = engine.sh(&["--read-only", "--tmpfs", "/scratch:size=1m,mode=1777"], script)?;
    ensure!(told.contains("refused") && told.contains("taken") && told.contains("size=1024k"), "{told}");
    Ok(())
}
