//! A part of the installation that is missing is named, and a broken one ends the start with a sentence and the console.

use std::fs;

use anyhow::{Result, ensure};

use crate::{Host, Outcome, own_stage};

pub fn run(host: &Host) -> Result<Outcome> {
    let (host, [dir, _root]) = own_stage(host)?;
    let lib = dir.path().join("lib/dewar");
    for part in ["vmlinux", "initramfs.cpio", "scratch.ext4"] {
        let (there, away) = (lib.join(part), lib.join("away"));
        fs::rename(&there, &away)?;
        host.run(&[], &["true"])?.exits(125)?.complains(part)?.complains("missing")?;
        host.nothing_left()?;
        let doctor = host.dewar(&["doctor"]).finish()?;
        ensure!(doctor.exits(1)?.text().contains(part), "{}", doctor.text());
        fs::rename(&away, &there)?;
    }
    let initramfs = lib.join("initramfs.cpio");
    let whole = fs::read(&initramfs)?;
    fs::remove_file(&initramfs)?;
    for broken in [&b""[..], &[0x5a; 4096], &whole[..whole.len() / 2]] {
        fs::write(&initramfs, broken)?;
        let run = host.run(&[], &["true"])?;
        // The VMM's own words where it looks, else the kernel's, from the console.
        let told = run.exits(125)?.err.contains("panic") || (broken.is_empty() && run.err.contains("is empty"));
        ensure!(told, "{run:?}");
        host.nothing_left()?;
    }
    fs::write(&initramfs, &whole)?;
    host.run(&[], &["true"])?.success()?;
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
