//! The end of the machine, and what the host gives it at its start.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::check;

const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;

/// Writes a byte to an I/O port.
pub fn out_byte(port: u16, value: u8) -> io::Result<()> {
    // SAFETY: ioperm only changes which ports this process may use.
    check(unsafe { libc::ioperm(libc::c_ulong::from(port), 1, 1) })?;
    // SAFETY: the port has just been opened to this process, and a byte written to it touches no memory.
    unsafe { std::arch::asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
    Ok(())
}

/// `struct rand_pool_info` of `linux/random.h` with a buffer of 32 bytes.
#[repr(C)]
struct Entropy {
    bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; 32],
}

/// Adds 256 bits to the kernel's entropy pool, credited.
pub fn add_entropy(random: impl AsFd, bytes: [u8; 32]) -> io::Result<()> {
    let entropy = Entropy { bits: 256, size: 32, bytes };
    // SAFETY: RNDADDENTROPY reads the header and as many bytes as its size says, all within `entropy`.
    check(unsafe { libc::ioctl(random.as_fd().as_raw_fd(), RNDADDENTROPY, &raw const entropy) })?;
    Ok(())
}
