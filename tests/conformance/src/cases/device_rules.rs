//! A device that no rule allows cannot be opened, whatever node there is.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.grant(&["CAP_MKNOD"]);
    // 1:1 is /dev/mem, 1:11 the kernel's log.
    let script = "for n in 1 11; do mknod /tmp/$n c 1 $n 2>/dev/null; head -c 1 /tmp/$n >/dev/null 2>&1 && echo opened $n; done; true";
    let out = bundle.sh(script)?;
    ensure!(out.is_empty(), "{out}");
    Ok(())
}
