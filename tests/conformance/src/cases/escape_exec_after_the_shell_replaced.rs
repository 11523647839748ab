//! What the workload puts in the place of programs runs inside only, and `exec` says when there is none.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    container.exec_sh("cp /bin/busybox /busybox-kept; rm /bin/sh; ln -s /proc/1/root/no-such /bin/sh; mkdir /bin/evil")?;
    container.exec(&[], &["sh", "-c", "echo ran"])?.fails()?;
    container.exec(&[], &["/bin/evil"])?.fails()?;
    ensure!(container.exec(&[], &["/busybox-kept", "echo", "still here"])?.success()? == "still here\n");
    ensure!(container.status()? == "running");
    Ok(())
}
