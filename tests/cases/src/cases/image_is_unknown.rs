//! An image that is nowhere: a sentence, 125, and no container.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let never = ["run", "--rm", "--pull", "never", "--name", &name, "no-such-image"];
    host.dewar(&never).finish()?.exits(125)?.complains("No such image: no-such-image")?;
    // Nobody listens on port 1.
    let nowhere = "localhost:1/no/such:image";
    let run = host.dewar(&["run", "--rm", "--name", &name, nowhere]).finish()?;
    run.exits(125)?.complains(&format!("Unable to find image '{nowhere}' locally"))?.complains("Cannot")?;
    host.dewar(&["create", "--pull", "never", "--name", &name, "no-such-image"]).finish()?.exits(125)?;
    host.dewar(&["run", "--name", &name, "UPPER/case"]).finish()?.exits(125)?.complains("UPPER/case")?;
    let out = host.dewar(&["ps", "-a", "-q", "--filter", &format!("name={name}")]).finish()?.success()?;
    ensure!(out.is_empty(), "{out}");
    Ok(Outcome::Passed)
}
