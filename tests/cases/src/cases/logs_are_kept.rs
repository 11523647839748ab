//! `logs` gives back both outputs in order, also after the end; `-f` follows to it.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "echo out one; echo err one >&2; sleep 1; echo out two";
    host.dewar(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]).finish()?.success()?;
    let followed = host.dewar(&["logs", "-f", &name]).finish()?;
    ensure!(followed.success()? == "out one\nout two\n" && followed.err == "err one\n", "{followed:?}");
    let again = host.dewar(&["logs", "--tail", "1", &name]).finish()?;
    ensure!(again.success()? == "out two\n", "{again:?}");
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
