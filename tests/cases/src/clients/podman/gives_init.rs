//! `--init` puts podman's own init before the command.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let told = podman.sh(&["--init"], "tr '\\0' ' ' </proc/1/cmdline; echo; echo $$")?;
    ensure!(told.contains("podman-init") || told.contains("catatonit"), "{told}");
    ensure!(!told.ends_with("\n1"), "{told}");
    podman.run(&["--rm", "--init"], &["sh", "-c", "exit 6"])?.exits(6)?;
    Ok(())
}
