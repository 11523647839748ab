//! `exec --cap` grants a capability for this process.

use anyhow::{Context, Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let effective = |flags: &[&str]| -> Result<u64> {
        let status = container.exec(flags, &["cat", "/proc/self/status"])?.success()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
        Ok(u64::from_str_radix(mask.trim(), 16)?)
    };
    const CHOWN: u64 = 1;
    ensure!(effective(&[])? & CHOWN == 0, "the container's process has it already");
    ensure!(effective(&["--cap", "CAP_CHOWN"])? & CHOWN == CHOWN, "not granted");
    Ok(())
}
