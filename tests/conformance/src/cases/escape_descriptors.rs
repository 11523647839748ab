//! The process has no descriptor but its three.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    // The listing itself holds one of the folder.
    let out = bundle.sh("ls /proc/1/fd | tr '\\n' ' '; ls -l /proc/1/fd | grep -v -E ' (0|1|2) -> ' | grep -e '->'; true")?;
    let (numbers, others) = out.split_once('\n').unwrap_or((&out, ""));
    ensure!(numbers.trim() == "0 1 2", "{numbers}: {others}");
    Ok(())
}
