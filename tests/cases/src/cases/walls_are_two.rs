//! The guest has a kernel of its own, and in it the container has namespaces of its own.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let script = "uname -r; echo pid $$; hostname; cat /proc/1/comm; grep -c . /proc/mounts; grep ' / ' /proc/mounts";
    let out = host.sh(&["-h", "flask"], script)?;
    let lines: Vec<&str> = out.lines().collect();
    let ours = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(lines[0] != ours.trim(), "the guest runs the host's kernel {}", lines[0]);
    ensure!(lines[1..3] == ["pid 1", "flask"], "{out}");
    ensure!(lines[3] == "sh", "{out}");
    ensure!(lines.last().is_some_and(|l| l.starts_with("overlay / overlay")), "{out}");
    Ok(Outcome::Passed)
}
