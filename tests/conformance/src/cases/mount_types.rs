//! proc, sysfs, devpts, mqueue and a shared memory folder are what they say.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.sh("for d in /proc /sys /dev /dev/pts /dev/mqueue /dev/shm; do grep \" $d \" /proc/mounts | tail -n 1; done")?;
    let found: Vec<(&str, &str)> = out
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter_map(|words| Some((*words.get(1)?, *words.get(2)?)))
        .collect();
    let expected = [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/dev/shm", "tmpfs"),
    ];
    ensure!(found == expected, "{out}");
    Ok(())
}
