//! What runs in a forked child between clone3(2) and execve(2).
//!
//! A child is a copy of the single-threaded agent, so it may allocate. It never returns into the agent's code: it ends in
//! execve, or it reports a [`Failure`] over its report socket and leaves by `_exit`. The paths it meets belong to a
//! hostile image and are resolved with openat2(2) inside the container's root ([`paths`]).

pub mod command;
pub mod copy_up;
pub mod credentials;
pub mod devices;
pub mod exec;
pub mod hooks;
pub mod init;
pub mod mounts;
pub mod paths;
pub mod reaper;
pub mod report;
pub mod terminal;

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use dewar_protocol::ErrorKind;
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{chdir, fchdir, pivot_root},
};

use crate::{
    container::stdio::ChildStdio,
    error::{Doing, Failure, Result},
    sys::{process, signal},
};

/// Set in children: a panic there ends the child and not the machine.
static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process is a child of the agent.
pub fn in_child() -> bool {
    IN_CHILD.load(Ordering::Relaxed)
}

/// Marks this process as a child of the agent.
pub fn mark() {
    IN_CHILD.store(true, Ordering::Relaxed);
}

/// Makes a directory this process's root and lets go of the old one.
pub fn pivot(root: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fchdir(root)?;
    // The old root ends up mounted over the new one, where "." still finds it.
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// The report socket's number in every child. Lower numbers are the standard streams.
const REPORT: i32 = 3;

/// Where `leave_agent` puts what it is asked to keep, one behind the other.
const KEPT: i32 = 4;

/// Leaves the agent behind: only the standard streams, the report socket and what is to be kept (until execve) stay
/// open, signals are as a new program expects them. Answers the kept descriptors, in their order.
fn leave_agent(
    stdio: &ChildStdio,
    report: BorrowedFd<'_>,
    keep: &[BorrowedFd<'_>],
) -> Result<Vec<BorrowedFd<'static>>> {
    mark();
    let failed = || "Handing descriptors to the process failed".to_owned();
    let end = i32::try_from(keep.len()).ok().and_then(|count| KEPT.checked_add(count));
    let end = end.ok_or_else(|| Failure::invalid("The container has too many mounts"))?;
    // Out of the way first: what goes to the numbers below may itself lie there.
    let away = |fd: BorrowedFd<'_>| process::copy_above(fd, end.max(16)).doing(failed);
    let report = away(report)?;
    let keep: Vec<OwnedFd> = keep.iter().map(|fd| away(*fd)).collect::<Result<_>>()?;
    let streams = match stdio {
        ChildStdio::Terminal => None,
        ChildStdio::Streams(streams) => {
            let [input, output, errors] = streams.each_ref().map(|fd| away(fd.as_fd()));
            Some([input?, output?, errors?])
        }
    };
    for (number, stream) in (0..).zip(streams.iter().flatten()) {
        process::place_descriptor(stream, number, false).doing(failed)?;
    }
    process::place_descriptor(&report, REPORT, true).doing(failed)?;
    let mut kept = Vec::with_capacity(keep.len());
    for (number, fd) in (KEPT..).zip(&keep) {
        process::place_descriptor(fd, number, true).doing(failed)?;
        // SAFETY: the descriptor has just been put there, and nothing in this child closes it.
        kept.push(unsafe { BorrowedFd::borrow_raw(number) });
    }
    // What `close_from` closes must not be dropped later.
    std::mem::forget((report, streams, keep));
    process::close_from(end.cast_unsigned()).doing(failed)?;
    signal::reset(libc::SIGPIPE);
    signal::block_only(&[]).doing(|| "Resetting the signal mask failed".into())?;
    Ok(kept)
}

/// Ends the child: reports why, with the exit code docker gives for it.
fn give_up(outcome: Result<Infallible>) -> ! {
    let Err(failure) = outcome;
    report::failure(&failure);
    process::exit_now(exit_code(&failure))
}

fn exit_code(failure: &Failure) -> i32 {
    match failure.kind {
        ErrorKind::CommandNotFound => 127,
        ErrorKind::CommandNotExecutable => 126,
        _ => 125,
    }
}
