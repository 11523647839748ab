//! An agent that is killed ends the start with a sentence and the guest's last words, and nothing stays behind.

use std::fs::{self, File};

use anyhow::{Result, ensure};

use crate::{Host, Outcome, own_stage};

/// An ELF executable for x86-64 of one segment, the whole file, whose first instruction is none: the kernel kills it.
fn killed() -> Vec<u8> {
    let mut file = vec![0; 122];
    let parts: [(usize, &[u8]); 10] = [
        // Class, byte order, version; kind, machine, version.
        (0, b"\x7fELF\x02\x01\x01"),
        (16, &[2, 0, 62, 0, 1]),
        // Entry, program headers, sizes.
        (24, &0x40_0078_u64.to_le_bytes()),
        (32, &[64]),
        (52, &[64, 0, 56, 0, 1, 0]),
        // PT_LOAD, readable and executable; address, sizes.
        (64, &[1, 0, 0, 0, 5]),
        (80, &0x40_0000_u64.to_le_bytes()),
        (96, &[122]),
        (104, &[122]),
        // ud2
        (120, &[0x0f, 0x0b]),
    ];
    for (at, bytes) in parts {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

pub fn run(host: &Host) -> Result<Outcome> {
    let (host, [dir, _root]) = own_stage(host)?;
    let initramfs = dir.path().join("lib/dewar/initramfs.cpio");
    fs::remove_file(&initramfs)?;
    dewar_rootfs::initramfs::write(&killed(), File::create(&initramfs)?)?;
    let run = host.run(&[], &["true"])?;
    ensure!(run.exits(125)?.err.contains("Attempted to kill init"), "{run:?}");
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
