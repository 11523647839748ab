//! A verb or flag that does not exist is an error: nothing is passed over.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    host.runtime(&["frobnicate"])?.fails()?;
    host.runtime(&["state", "--no-such-flag", "nobody"])?.fails()?;
    host.runtime(&["list", "--format", "no-such-format"])?.fails().map(drop)
}
