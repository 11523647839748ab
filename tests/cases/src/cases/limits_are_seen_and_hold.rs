//! Memory, CPU and process limits are set in the container's cgroup and seen inside.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let flags = ["-m", "128m", "--cpus", "0.5", "--pids-limit", "20"];
    let out = host.sh(&flags, "cd /sys/fs/cgroup && cat memory.max memory.swap.max cpu.max pids.max; nproc")?;
    let lines: Vec<&str> = out.lines().collect();
    ensure!(lines == ["134217728", "134217728", "50000 100000", "20", "1"], "{out}");
    let bomb = host.run(&flags, &["sh", "-c", "for i in $(seq 40); do sleep 5 & done"])?;
    ensure!(bomb.err.contains("can't fork"), "the process limit does not hold: {bomb:?}");
    let out = host.sh(&["--cpus", "2"], "nproc")?;
    ensure!(out.trim() == "2", "{out}");
    Ok(Outcome::Passed)
}
