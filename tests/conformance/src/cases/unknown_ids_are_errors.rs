//! No verb does anything for an id that nobody created.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    for verb in ["state", "start", "delete", "pause", "resume", "ps", "kill"] {
        host.runtime(&[verb, "nobody"])?.fails()?;
    }
    host.runtime(&["exec", "nobody", "true"])?.fails()?;
    Ok(())
}
