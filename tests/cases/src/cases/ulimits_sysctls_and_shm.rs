//! `--ulimit`, `--sysctl` and `--shm-size` hold in the container; what makes no sense is refused.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let flags = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--shm-size", "1m"];
    let sysctls = ["--sysctl", "kernel.msgmax=4242", "--sysctl", "net.ipv4.ip_forward=1"];
    let flags = [&flags[..], &sysctls].concat();
    let script = "ulimit -Sn; ulimit -Hn; ulimit -c; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_forward; \
        dd if=/dev/zero of=/dev/shm/x bs=1M count=2 2>&1 | grep -o 'No space left on device'; stat -c %s /dev/shm/x";
    let out = host.sh(&flags, script)?;
    ensure!(out == "100\n200\n0\n4242\n1\nNo space left on device\n1048576\n", "{out}");
    let usual = host.sh(&[], "df -k /dev/shm | tail -1 | awk '{print $2}'")?;
    ensure!(usual == "65536\n", "docker gives 64 MiB: {usual}");
    host.run(&["--ulimit", "nofile=200:100"], &["true"])?.exits(125)?.complains("nofile")?;
    host.run(&["--ulimit", "bogus=1"], &["true"])?.exits(125)?.complains("bogus")?;
    host.run(&["--sysctl", "kernel.panic=1"], &["true"])?.exits(125)?.complains("kernel.panic")?;
    host.run(&["--sysctl", "kernel.msgmax=words"], &["true"])?.exits(125)?.complains("msgmax")?;
    Ok(Outcome::Passed)
}
