//! The devices that the specification promises are there and work.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.sh(
        "for d in null zero full random urandom tty; do test -c /dev/$d && stat -c '%n %a %t:%T' /dev/$d; done
         echo x >/dev/null; head -c 4 /dev/zero | od -An -tx1; (echo x >/dev/full) 2>/dev/null || echo full
         head -c 16 /dev/urandom | wc -c; test -c /dev/ptmx && echo ptmx",
    )?;
    for line in ["/dev/null 666 1:3", "/dev/zero 666 1:5", "/dev/full 666 1:7", "/dev/random 666 1:8"] {
        ensure!(out.contains(line), "no {line}: {out}");
    }
    ensure!(out.contains("/dev/urandom 666 1:9") && out.contains("/dev/tty 666 5:0"), "{out}");
    ensure!(out.contains(" 00 00 00 00\n") && out.contains("\nfull\n16\nptmx\n"), "{out}");
    Ok(())
}
