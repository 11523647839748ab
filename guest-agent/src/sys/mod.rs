//! System calls that `rustix` does not wrap. Every function here is safe to call from a process with one thread, which
//! the agent and its children before execve are.

pub mod block;
pub mod mount;
pub mod network;
pub mod power;
pub mod process;
pub mod scheduling;
pub mod signal;
pub mod vsock;

use std::io;

/// The result of a call that answers -1 on error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of [`libc::syscall`].
fn check_long(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
