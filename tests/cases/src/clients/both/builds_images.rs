//! `build` runs its steps in machines.

use anyhow::{Result, ensure};

use super::Engine;

const FILE: &str = "FROM busybox\nRUN uname -r >/kernel && echo built >/file\nRUN cat /file >>/twice && echo x >>/twice\n";

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("Dockerfile"), FILE)?;
    let image = format!("localhost/{}", engine.host.name());
    let context = dir.path().display().to_string();
    let args = [&["build", "-q", "--network", "none", "-t", &image], engine.kind.build_flags, &[&context]].concat();
    engine.ok(&args)?;
    let told = engine.ok(&["run", "--rm", "--network", "none", &image, "cat", "/twice", "/kernel"])?;
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(told.starts_with("built\nx\n") && !told.ends_with(host.trim()), "{told}");
    engine.ok(&["rmi", "-f", &image])?;
    Ok(())
}
