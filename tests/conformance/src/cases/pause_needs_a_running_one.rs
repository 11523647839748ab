//! What does not run cannot be paused.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut container = host.bundle()?.create()?;
    container.run()?;
    container.call(&["pause"])?.fails()?;
    container.call(&["resume"])?.fails().map(drop)
}
