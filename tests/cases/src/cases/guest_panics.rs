//! A guest kernel that panics ends the run with the reason and the last lines of its console.

use anyhow::Result;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    // sysrq from a privileged container: as good a way as any to make a guest kernel panic.
    let args = ["run", "--name", &name, "--privileged", "busybox", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 1000"];
    host.dewar(&args).finish()?.complains("panic")?;
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
