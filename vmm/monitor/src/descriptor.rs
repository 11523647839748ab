//! Descriptors that come from the parent or stand for signals.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vmm_sys_util::eventfd::EventFd;

/// What can be waited for.
pub fn of_event(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `event` lives, which is borrowed for the result's life.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Takes over a descriptor that the parent has passed on.
pub fn take(number: i32) -> anyhow::Result<File> {
    // SAFETY: `F_GETFD` only asks whether the number is an open descriptor.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    anyhow::ensure!(number > 2 && flags >= 0, "File descriptor {number} was not passed on");
    // SAFETY: the descriptor is open and above the standard ones, and nothing else in this process knows its number.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// Blocks the signals that ask for an end, in this thread and all that it starts, and returns what is readable when one
/// came.
pub fn block_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` initializes the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized above.
    let mut set = unsafe { set.assume_init() };
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: `set` is an initialized set and the number a valid signal.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    // SAFETY: `set` is initialized; the old mask is not asked for.
    let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    // SAFETY: `set` is initialized; a new descriptor is asked for.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
