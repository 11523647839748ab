//! Where the time of a start goes: with `DEWAR_TRACE=FILE` every process of a start appends one line
//! `<CLOCK_MONOTONIC in ns> <phase>` to FILE when a phase is over. `cargo xtask bench` and docs/benchmarks.md are made of it.
//!
//! Any thread may mark. Lines are whole and in the order of the writes, which need not be that of the times.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::time::{ClockId, clock_gettime};

/// Names the file.
pub const VARIABLE: &str = "DEWAR_TRACE";

fn file() -> Option<&'static File> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(VARIABLE).filter(|p| !p.is_empty())?;
        match OpenOptions::new().create(true).append(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) => {
                eprintln!("dewar: {VARIABLE}: cannot write {}: {error}", path.display());
                None
            }
        }
    };
    FILE.get_or_init(open).as_ref()
}

/// Whether anybody wants to know: for what costs something to find out.
#[must_use]
pub fn is_on() -> bool {
    file().is_some()
}

/// What marks are written to, for who closes descriptors.
pub(crate) fn descriptor() -> Option<BorrowedFd<'static>> {
    file().map(AsFd::as_fd)
}

/// Notes that a phase is over now.
pub fn mark(phase: &str) {
    if is_on() {
        mark_at(now_ns(), phase);
    }
}

/// Notes that a phase was over at a time told by somebody else.
pub fn mark_at(ns: u64, phase: &str) {
    if let Some(mut file) = file() {
        // A trace that cannot be written must not fail what it traces.
        let _ = file.write_all(format!("{ns} {phase}\n").as_bytes());
    }
}

/// The trace's clock.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}
