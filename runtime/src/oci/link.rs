//! The connection to a sandbox (see [`super::sandbox`]): what can be asked of it, and by whom.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dewar_protocol::{Reply, Request};
use serde::{Deserialize, Serialize};

use crate::control::ControlError;
use crate::control::wire::Wire;
use crate::engine::EngineChoice;
use crate::{Error, ErrorKind, ResultExt};

/// Where a sandbox listens, in its folder.
pub(super) const SOCKET: &str = "sandbox.sock";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Ask {
    /// A call of the guest's agent.
    Agent(Request),
    /// Offers the directory or file whose descriptor follows to the guest. It goes with the member that asked.
    Share { name: String, read_only: bool },
    /// Makes what was offered under this name read-only from now on.
    Seal { name: String },
    /// This connection stands for a container: when it breaks, the container is deleted in the guest; with the last one
    /// the machine ends. Answered when the guest is up.
    Join { container: String },
    /// The member's orderly end: its container is deleted in the guest and what it wrote is on the host's disk when the
    /// answer comes.
    Leave,
    /// What a joined member is told.
    Info,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Agent(Reply),
    Joined(Joined),
}

/// What a member needs to know of its sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Joined {
    pub engine: EngineChoice,
    /// One line for the user: why a slower engine was taken.
    pub notice: Option<String>,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// The machine's vsock, as host-side socket.
    pub vsock: PathBuf,
}

/// One connection; requests strictly in turn.
#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { wire: Wire::new(socket) }
    }

    pub(super) fn connect(sandbox: &Path) -> Result<Self, Error> {
        let path = sandbox.join(SOCKET);
        let socket = UnixStream::connect(&path)
            .kind(ErrorKind::State, || "container not running: its machine has ended".to_owned())?;
        Ok(Self::new(socket))
    }

    pub(super) fn send(&mut self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.wire.send(ask, fds)
    }

    pub(super) fn receive(&mut self) -> Result<Answer, Error> {
        let answer: Option<Result<Answer, ControlError>> = self.wire.receive()?;
        let answer = answer.ok_or_else(|| Error::new(ErrorKind::Machine, "The sandbox hung up"))?;
        answer.map_err(Error::from)
    }

    pub(super) fn ask(&mut self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<Answer, Error> {
        self.send(ask, fds)?;
        self.receive()
    }

    /// Asks for something that has no result.
    pub(super) fn ask_done(&mut self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        match self.ask(ask, fds)? {
            Answer::Done => Ok(()),
            other => Err(strange(&other)),
        }
    }

    /// Calls the guest's agent.
    pub(super) fn agent(&mut self, request: Request) -> Result<Reply, Error> {
        match self.ask(&Ask::Agent(request), &[])? {
            Answer::Agent(reply) => Ok(reply),
            other => Err(strange(&other)),
        }
    }

    /// Calls the guest's agent for something that has no result.
    pub(super) fn agent_done(&mut self, request: Request) -> Result<(), Error> {
        match self.agent(request)? {
            Reply::Done => Ok(()),
            other => Err(crate::supervisor::unexpected(&other)),
        }
    }
}

pub(super) fn strange(answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, format!("The sandbox gave an answer that does not fit: {answer:.100?}"))
}
