//! A stopped container takes no signal.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut container = host.bundle()?.create()?;
    container.run()?;
    host.runtime(&["kill", &container.id, "TERM"])?.fails().map(drop)
}
