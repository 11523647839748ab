//! `exec --ignore-paused` runs its process when the container is resumed; without the flag it is refused.

use std::thread;

use anyhow::{Result, ensure};

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let container = bundle.script("exec sleep 1000").create()?;
    container.start()?;
    container.call(&["pause"])?.success()?;
    if host.runtime(&["exec", "--help"])?.text().contains("--ignore-paused") {
        container.exec(&[], &["true"])?.fails()?;
        let finished = thread::scope(|scope| {
            let exec = scope.spawn(|| container.exec(&["--ignore-paused"], &["echo", "ran"]));
            container.call(&["resume"])?.success()?;
            exec.join().map_err(|_| anyhow::anyhow!("the call panicked"))?
        })?;
        let out = finished.success()?;
        ensure!(out == "ran\n", "{out:?}");
        return Ok(());
    }
    container.call(&["resume"])?.success()?;
    skip("the runtime has no such flag")
}
