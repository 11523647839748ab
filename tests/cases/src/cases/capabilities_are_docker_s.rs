//! Docker's fourteen capabilities by default; more and fewer by flags.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let caps = |flags: &[&str]| -> Result<u64> {
        let out = host.sh(flags, "grep CapEff /proc/self/status")?;
        Ok(u64::from_str_radix(out.split_whitespace().last().unwrap_or(""), 16)?)
    };
    ensure!(caps(&[])? == 0xa804_25fb);
    ensure!(caps(&["--cap-drop", "ALL"])? == 0);
    ensure!(caps(&["--cap-drop", "ALL", "--cap-add", "CHOWN"])? == 1);
    ensure!(caps(&["--cap-add", "SYS_TIME"])? == 0xa804_25fb | 1 << 25);
    ensure!(caps(&["--privileged"])?.count_ones() >= 41);
    ensure!(caps(&["-u", "nobody"])? == 0);
    Ok(Outcome::Passed)
}
