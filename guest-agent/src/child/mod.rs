//! What runs in a forked child between clone3(2) and execve(2).
//!
//! A child is a copy of the single-threaded agent, so it may allocate. It never returns into the agent's code: it ends in
//! execve, or it reports a [`Failure`] over its report socket and leaves by `_exit`. The paths it meets belong to a
//! hostile image and are resolved with openat2(2) inside the container's root ([`paths`]).

pub mod command;
pub mod credentials;
pub mod devices;
pub mod exec;
pub mod init;
pub mod mounts;
pub mod paths;
pub mod reaper;
pub mod report;
pub mod terminal;

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use dewar_protocol::ErrorKind;

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

/// The report socket's number in every child. Lower numbers are the standard streams.
const REPORT: i32 = 3;

/// Where `leave_agent` puts what it is asked to keep.
const KEPT: i32 = 4;

/// Leaves the agent behind: only the standard streams, the report socket and what is to be `kept` (until execve) stay
/// open, signals are as a new program expects them. Answers the kept descriptor.
fn leave_agent(
    stdio: &ChildStdio,
    report: BorrowedFd<'_>,
    keep: Option<BorrowedFd<'_>>,
) -> Result<Option<BorrowedFd<'static>>> {
    IN_CHILD.store(true, Ordering::Relaxed);
    let failed = || "Handing descriptors to the process failed".to_owned();
    // Out of the way first: what goes to 0..=3 may itself lie there.
    let report = process::copy_above(report, 16).doing(failed)?;
    let keep = keep.map(|fd| process::copy_above(fd, 16)).transpose().doing(failed)?;
    let streams = match stdio {
        ChildStdio::Terminal => None,
        ChildStdio::Streams(streams) => {
            let [input, output, errors] = streams.each_ref().map(|fd| process::copy_above(fd.as_fd(), 16));
            Some([input.doing(failed)?, output.doing(failed)?, errors.doing(failed)?])
        }
    };
    for (number, stream) in (0..).zip(streams.iter().flatten()) {
        process::place_descriptor(stream, number, false).doing(failed)?;
    }
    process::place_descriptor(&report, REPORT, true).doing(failed)?;
    let kept = match &keep {
        Some(fd) => {
            process::place_descriptor(fd, KEPT, true).doing(failed)?;
            // SAFETY: the descriptor has just been put there, and nothing in this child closes it.
            Some(unsafe { BorrowedFd::borrow_raw(KEPT) })
        }
        None => None,
    };
    // What `close_from` closes must not be dropped later.
    std::mem::forget((report, streams, keep));
    process::close_from(if kept.is_some() { 5 } else { 4 }).doing(failed)?;
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
