//! `run` exits as the process did, and with 128 and the signal that ended it.

use anyhow::Result;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137)] {
        // Its pid is not 1, which signals of its own namespace do not reach.
        let mut bundle = host.bundle()?;
        let script = if script.starts_with("kill") { "sh -c 'kill -9 $$'; exit $?" } else { script };
        bundle.script(script).run()?.exits(code)?;
    }
    Ok(())
}
