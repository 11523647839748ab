//! Signals: the mask, a descriptor to read SIGCHLD from, and sending by pidfd.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use super::{check, check_long};

fn set_of(signals: &[libc::c_int]) -> io::Result<libc::sigset_t> {
    // SAFETY: an all-zero sigset_t is the empty set on Linux.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: the set is initialised; a number that is no signal is answered with EINVAL.
        check(unsafe { libc::sigaddset(&raw mut set, *signal) })?;
    }
    Ok(set)
}

/// Makes `signals` the whole mask of blocked signals.
pub fn block_only(signals: &[libc::c_int]) -> io::Result<()> {
    let set = set_of(signals)?;
    // SAFETY: the set outlives the call and no old mask is asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) })?;
    Ok(())
}

/// A non-blocking descriptor that becomes readable when one of `signals`, which must be blocked, is pending.
pub fn descriptor(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = set_of(signals)?;
    // SAFETY: the set outlives the call; -1 asks for a new descriptor.
    let fd = check(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: signalfd has just returned this descriptor and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks every signal and waits for one; its number.
pub fn wait_any() -> io::Result<libc::c_int> {
    // SAFETY: an all-zero sigset_t is valid storage for sigfillset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid storage.
    check(unsafe { libc::sigfillset(&raw mut set) })?;
    // SAFETY: the set is initialised and no information is asked for.
    check(unsafe { libc::sigwaitinfo(&raw const set, ptr::null_mut()) })
}

/// Waits for a signal, which must be blocked, for as long as `patience` lasts. An early return is no error.
pub fn wait_for(signal: libc::c_int, patience: Option<std::time::Duration>) -> io::Result<()> {
    let set = set_of(&[signal])?;
    let timeout = patience.map(|patience| libc::timespec {
        tv_sec: libc::time_t::try_from(patience.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(patience.subsec_nanos().cast_signed()),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: set and timeout, if there is one, outlive the call, and no information is asked for.
    check(unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), timeout) })?;
    Ok(())
}

/// Blocks every signal that can be blocked.
pub fn block_all() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is valid storage for sigfillset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid storage.
    check(unsafe { libc::sigfillset(&raw mut set) })?;
    // SAFETY: the set outlives the call and no old mask is asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut()) })?;
    Ok(())
}

/// Gives a signal its default action.
pub fn reset(signal: libc::c_int) {
    // SAFETY: SIG_DFL installs no handler of ours.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Sends a signal, which may be a real-time one, to a process by its pidfd.
pub fn send(pidfd: impl AsFd, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no siginfo is passed; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0_u32,
        )
    };
    check_long(result)?;
    Ok(())
}

/// Sends a signal to a process by its number.
pub fn send_to(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: kill touches no memory of this process.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}
