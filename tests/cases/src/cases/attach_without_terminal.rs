//! `attach` without a terminal joins all three streams, ends with the container and answers its exit code.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "while read line; do echo out $line; echo err $line >&2; [ $line = last ] && exit 3; done";
    host.dewar(&["run", "-d", "-i", "--name", &name, "busybox", "sh", "-c", script]).finish()?.success()?;
    let attached = host.dewar(&["attach", &name]).input("first\nlast\n").finish()?;
    attached.exits(3)?;
    ensure!(attached.text() == "out first\nout last\n" && attached.err == "err first\nerr last\n", "{attached:?}");
    let logs = host.dewar(&["logs", &name]).finish()?;
    ensure!(logs.success()? == attached.text() && logs.err == attached.err, "{logs:?}");
    host.dewar(&["attach", &name]).finish()?.exits(1)?.complains("stopped container")?;
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
