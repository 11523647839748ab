//! Limits are seen inside and hold on the host too; `update` changes them in a running container.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&["-m", "128m", "--cpus", "0.5", "--pids-limit", "20"])?;
    let limits = || engine.ok(&["exec", &name, "sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.max pids.max"]);
    let told = limits()?;
    ensure!(told == "134217728\n50000 100000\n20", "{told}");
    engine.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "--cpus", "0.25", &name])?;
    let told = limits()?;
    ensure!(told == "67108864\n25000 100000\n20", "{told}");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
