//! Partitions of a disk by ioctl: one read-only disk carries many layers and the kernel probes it once.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::check;

const BLKPG: libc::Ioctl = 0x1269;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
const BLKPG_ADD_PARTITION: libc::c_int = 1;
const BLKPG_DEL_PARTITION: libc::c_int = 2;

/// `struct blkpg_partition` of `linux/blkpg.h`.
#[repr(C)]
struct BlkpgPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    pno: libc::c_int,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of `linux/blkpg.h`.
#[repr(C)]
struct BlkpgArgument {
    op: libc::c_int,
    flags: libc::c_int,
    datalen: libc::c_int,
    data: *mut BlkpgPartition,
}

fn blkpg(disk: impl AsFd, op: libc::c_int, number: i32, start: i64, length: i64) -> io::Result<()> {
    let mut partition = BlkpgPartition { start, length, pno: number, devname: [0; 64], volname: [0; 64] };
    let mut argument =
        BlkpgArgument { op, flags: 0, datalen: size_of::<BlkpgPartition>() as libc::c_int, data: &raw mut partition };
    // SAFETY: the argument and the partition it points to outlive the call, with the layout that BLKPG reads.
    check(unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), BLKPG, &raw mut argument) })?;
    Ok(())
}

/// Makes partition `number` of the disk, in bytes.
pub fn add_partition(disk: impl AsFd, number: i32, start: i64, length: i64) -> io::Result<()> {
    blkpg(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Removes partition `number` of the disk.
pub fn remove_partition(disk: impl AsFd, number: i32) -> io::Result<()> {
    blkpg(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

/// The size of a disk in bytes.
pub fn size(disk: impl AsFd) -> io::Result<u64> {
    let mut bytes = 0_u64;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address it is given.
    check(unsafe { libc::ioctl(disk.as_fd().as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}
