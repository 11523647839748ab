//! Each of the five sets is what the configuration says.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    // CHOWN is 0, DAC_OVERRIDE 1, KILL 5, SETGID 6, SETUID 7.
    let names = |names: &[&str]| json!(names.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>());
    bundle.set("/process/user/uid", json!(1000));
    bundle.set("/process/capabilities/bounding", names(&["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"]));
    bundle.set("/process/capabilities/permitted", names(&["CHOWN", "KILL", "SETGID"]));
    bundle.set("/process/capabilities/effective", names(&["CHOWN", "KILL"]));
    bundle.set("/process/capabilities/inheritable", names(&["KILL", "SETGID"]));
    bundle.set("/process/capabilities/ambient", names(&["KILL"]));
    let status = bundle.set("/process/args", json!(["cat", "/proc/self/status"])).run()?.success()?;
    ensure!(mask(&status, "CapBnd")? == 0b1110_0011, "{status}");
    ensure!(mask(&status, "CapInh")? == 0b0110_0000, "{status}");
    ensure!(mask(&status, "CapAmb")? == 0b0010_0000, "{status}");
    // Not root: after execve only what is ambient is left of the other two.
    ensure!(mask(&status, "CapPrm")? == 0b0010_0000 && mask(&status, "CapEff")? == 0b0010_0000, "{status}");
    Ok(())
}

/// A capability set of the process that prints it.
fn mask(status: &str, set: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(':')).context("no such set")?;
    Ok(u64::from_str_radix(line.trim(), 16)?)
}
