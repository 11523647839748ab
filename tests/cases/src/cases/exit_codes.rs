//! A run exits as docker's does: the command's own code, 128 + n, 127, 126 and 125.

use anyhow::Result;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    host.run(&[], &["true"])?.exits(0)?;
    host.run(&[], &["sh", "-c", "exit 7"])?.exits(7)?;
    host.run(&[], &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"])?.exits(137)?;
    host.run(&[], &["no-such-command"])?.exits(127)?.complains("no-such-command")?;
    host.run(&[], &["/etc/passwd"])?.exits(126)?.complains("/etc/passwd")?;
    host.run(&[], &["/etc"])?.exits(126)?;
    host.dewar(&["run", "--no-such-flag", "busybox"]).finish()?.exits(125)?;
    host.dewar(&["run", "--pull", "never", "no-such-image:none"]).finish()?.exits(125)?.complains("no-such-image")?;
    Ok(Outcome::Passed)
}
