//! /dev has the links that the specification promises.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.sh("for l in fd stdin stdout stderr; do readlink /dev/$l; done; echo through >/dev/stdout")?;
    let expected = "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\nthrough\n";
    ensure!(out == expected, "{out}");
    Ok(())
}
