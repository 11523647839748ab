//! A bundle without `config.json` is refused, as is one that is not there.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let bundle = host.bundle()?;
    let id = host.id();
    host.command(&["create", "--bundle"]).arg(&bundle.path).arg(&id).finish()?.fails()?;
    host.command(&["create", "--bundle"]).arg(bundle.path.join("nothing")).arg(&id).finish()?.fails()?;
    host.runtime(&["state", &id])?.fails().map(drop)
}
