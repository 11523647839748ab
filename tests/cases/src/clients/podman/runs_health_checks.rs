//! A health check is a command in the container.

use anyhow::Result;

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let name = podman.sleeper(&["--health-cmd", "test -e /healthy", "--health-interval", "disable"])?;
    podman.any(&["healthcheck", "run", &name])?.exits(1)?;
    podman.ok(&["exec", &name, "touch", "/healthy"])?;
    podman.ok(&["healthcheck", "run", &name])?;
    podman.ok(&["rm", "-f", &name])?;
    Ok(())
}
