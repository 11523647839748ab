//! What a machine costs its host beside the guest's own memory.

use std::fs;

use anyhow::{Context, Result};

use crate::report;
use crate::stopwatch::{command, time};

const MIB: f64 = 1024.0;
/// Machines looked at.
const MACHINES: usize = 5;
/// A mapping of guest memory is at least so large, and no other is.
const RAM_KIB: u64 = 64 << 10;

/// Of one process, in KiB.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    private_dirty: u64,
    pss: u64,
    /// The same of guest memory.
    ram_pss: u64,
}

pub fn measure() -> Result<()> {
    eprintln!("bench: memory");
    let (mut dirty, mut pss, mut ram, mut supervisor) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..MACHINES {
        time(&mut command("dewar run -d --name bench busybox sleep 1000000"))?;
        let vmm = usage_of("dewar-vmm")?;
        dirty.push(mib(vmm.private_dirty));
        pss.push(mib(vmm.pss));
        ram.push(mib(vmm.ram_pss));
        supervisor.push(mib(usage_of("dewar-superviso")?.private_dirty));
        time(&mut command("dewar rm -f bench"))?;
    }
    report("dewar-vmm, private dirty, without guest memory", "MiB", &dirty);
    report("dewar-vmm, proportional share, without guest memory", "MiB", &pss);
    report("guest memory touched, idle container", "MiB", &ram);
    report("dewar-supervisor, private dirty", "MiB", &supervisor);
    Ok(())
}

fn mib(kib: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let kib = kib as f64;
    kib / MIB
}

/// By the process's name, of which the kernel keeps 15 bytes. Machines that are being taken apart have no mappings.
fn usage_of(name: &str) -> Result<Usage> {
    for entry in fs::read_dir("/proc").context("cannot list processes")? {
        let path = entry?.path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let maps = fs::read_to_string(path.join("smaps")).unwrap_or_default();
        if comm.trim_end() == name && !maps.is_empty() {
            return Ok(sum(&maps));
        }
    }
    anyhow::bail!("no process {name}")
}

fn sum(maps: &str) -> Usage {
    let mut usage = Usage::default();
    let mut is_ram = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else { continue };
        let Ok(kib) = value.parse::<u64>() else { continue };
        match name {
            "Size:" => is_ram = kib >= RAM_KIB,
            "Pss:" if is_ram => usage.ram_pss += kib,
            "Pss:" => usage.pss += kib,
            "Private_Dirty:" if !is_ram => usage.private_dirty += kib,
            _ => {}
        }
    }
    usage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_counted_apart() {
        let maps = "7f0000000000-7f0020000000 rw-p 0 00:00 0 \nSize: 524288 kB\nPss: 30000 kB\nPrivate_Dirty: 30000 kB\n\
                    400000-500000 rw-p 0 00:00 7 /bin/x\nSize: 1024 kB\nPss: 12 kB\nPrivate_Dirty: 8 kB\nVmFlags: rd\n";
        assert_eq!(sum(maps), Usage { private_dirty: 8, pss: 12, ram_pss: 30000 });
    }
}
