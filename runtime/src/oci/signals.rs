//! Signals as events: blocked in every thread, taken by one.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Blocks all signals in this thread and in those that it starts from now on.
///
/// # Errors
/// The system call's.
pub(super) fn block_all() -> io::Result<()> {
    block(full())
}

/// Blocks the signal of a terminal that hangs up.
///
/// # Errors
/// The system call's.
pub(super) fn block_hangup() -> io::Result<()> {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and both work on a valid pointer.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
        set.assume_init()
    };
    block(set)
}

fn block(set: libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is a valid object, the old one is not asked for.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Has a command begin with no signal blocked, whatever is blocked here.
pub(super) fn unblocked(command: &mut Command) {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set and cannot fail on a valid pointer.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    let unblock = move || {
        // SAFETY: the set is a valid object, the old one is not asked for.
        let result = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
    };
    // SAFETY: the closure makes one system call and touches no memory of others.
    unsafe { command.pre_exec(unblock) };
}

/// The next signal.
pub(super) fn next() -> io::Result<i32> {
    let set = full();
    loop {
        // SAFETY: the set is a valid object, details are not asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
        if signal > 0 {
            return Ok(signal);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn full() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigfillset initialises the whole set and cannot fail on a valid pointer.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        set.assume_init()
    }
}

/// Hands every signal that can be taken to `take`, in a thread of its own, until the process ends.
///
/// # Errors
/// When no thread can be started.
pub(super) fn take_all(take: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = next() {
            if signal != libc::SIGCHLD {
                take(signal);
            }
        }
    })?;
    Ok(())
}
