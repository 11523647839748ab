//! Less memory than docker allows is refused; the least allowed still boots.

use anyhow::Result;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    host.run(&["-m", "1m"], &["true"])?.exits(125)?.complains("6MB")?;
    host.run(&["-m", "6m"], &["true"])?.exits(0)?;
    Ok(Outcome::Passed)
}
