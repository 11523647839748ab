//! `exec` passes arguments and output on and exits as the process did.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let finished = container.exec(&[], &["sh", "-c", "echo \"$0|$1\"; echo bad >&2; exit 5", "two words", "$x"])?;
    finished.exits(5)?;
    ensure!(finished.text() == "two words|$x\n" && finished.err == "bad\n", "{finished:?}");
    container.exec(&[], &["sh", "-c", "kill -9 $$"])?.exits(137)?;
    Ok(())
}
