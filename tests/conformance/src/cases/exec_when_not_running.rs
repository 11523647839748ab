//! There is no `exec` in what has stopped.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut container = host.bundle()?.create()?;
    container.run()?;
    container.exec(&[], &["true"])?.fails().map(drop)
}
