//! What was created and never started is deleted by force, and its process ends.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut container = host.bundle()?.create()?;
    container.call(&["delete", "--force"])?.success()?;
    container.wait()?;
    container.call(&["state"])?.fails()?;
    Ok(())
}
