//! What one process can ask of a running container's supervisor, over `<run>/control.sock`.
//!
//! A connection carries [`ControlRequest`] frames one way and a `Result<ControlReply, ControlError>` frame for each the
//! other way, strictly in turn: who wants to wait and to resize at the same time uses two connections. File descriptors of
//! streams travel beside their request's frame (SCM_RIGHTS) in the order stdin, stdout, stderr.

mod client;
pub(crate) mod wire;

use dewar_protocol::{ProcessInfo, Stats, UserSpec, WindowSize};
use serde::{Deserialize, Serialize};

pub use client::{Client, Streams};

use crate::{Error, ErrorKind};

/// Which of the three descriptors follow a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamMask {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ControlRequest {
    /// Answered with [`ControlReply::Started`] when the container's command runs. Only on the connection that the
    /// supervisor was born with.
    Start {
        streams: StreamMask,
        size: Option<WindowSize>,
    },
    /// Joins the streams of the container's init: output from now on.
    Attach {
        streams: StreamMask,
    },
    /// Runs a process; `spec` is the JSON of an OCI `process`.
    Exec {
        spec: Vec<u8>,
        user: UserSpec,
        size: Option<WindowSize>,
        streams: StreamMask,
    },
    /// Answered when the process (the container's init without `exec`) has ended and its output was delivered.
    Wait {
        exec: Option<String>,
    },
    Signal {
        exec: Option<String>,
        signal: i32,
    },
    /// The stop signal, then SIGKILL after `timeout` seconds; answered when the container has ended.
    Stop {
        signal: Option<i32>,
        timeout: Option<u32>,
    },
    Resize {
        exec: Option<String>,
        size: WindowSize,
    },
    Stats,
    Top,
    Pause,
    Unpause,
    /// `resources`: JSON of the parts of OCI `linux.resources` that change, now and for later starts.
    Update {
        resources: Vec<u8>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ControlReply {
    Done,
    /// `notice`: one line for the user, such as that a slower engine was taken.
    Started {
        notice: Option<String>,
    },
    ExecStarted {
        exec: String,
    },
    Exited(Exit),
    Stats(Box<Stats>),
    Top(Vec<ProcessInfo>),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: u8,
    pub oom_killed: bool,
    /// Set when it was not the process's own doing (the machine broke).
    pub error: Option<String>,
}

/// An [`Error`] on the wire.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ControlError {
    kind: u8,
    message: String,
}

const KINDS: [ErrorKind; 9] = [
    ErrorKind::Internal,
    ErrorKind::NotFound,
    ErrorKind::Conflict,
    ErrorKind::Invalid,
    ErrorKind::State,
    ErrorKind::CommandNotFound,
    ErrorKind::CommandNotExecutable,
    ErrorKind::Machine,
    ErrorKind::Unsupported,
];

impl From<&Error> for ControlError {
    fn from(error: &Error) -> Self {
        let kind = KINDS.iter().position(|k| *k == error.kind()).unwrap_or(0);
        Self { kind: u8::try_from(kind).unwrap_or(0), message: error.chain() }
    }
}

impl From<ControlError> for Error {
    fn from(error: ControlError) -> Self {
        Self::new(KINDS.get(usize::from(error.kind)).copied().unwrap_or(ErrorKind::Internal), error.message)
    }
}

/// Fills a buffer from the kernel's random number generator.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => unreachable!("getrandom without flags on a valid buffer only fails by interruption: {e}"),
        }
    }
}

/// The wall clock in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_kind_and_its_causes_across_the_socket() {
        for kind in KINDS {
            let error = Error::with(kind, "Cannot do it", std::io::Error::other("the cause"));
            let back = Error::from(ControlError::from(&error));
            assert_eq!((back.kind(), back.to_string().as_str()), (kind, "Cannot do it: the cause"));
        }
    }
}
