//! The asking side of a control connection.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dewar_protocol::{ProcessInfo, Stats, UserSpec, WindowSize};

use super::wire::Wire;
use super::{ControlError, ControlReply, ControlRequest, Exit, StreamMask};
use crate::container::Container;
use crate::{Error, ErrorKind, ResultExt};

/// Descriptors handed to the supervisor, which pumps straight between them and the guest: pass the caller's own stdio, or
/// one end of a socket pair where the caller must see the bytes (terminals). They should be in blocking mode.
#[derive(Debug, Default)]
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

impl Streams {
    fn mask(&self) -> StreamMask {
        StreamMask { stdin: self.stdin.is_some(), stdout: self.stdout.is_some(), stderr: self.stderr.is_some() }
    }
}

/// A control connection to one container's supervisor. Calls block until they are answered.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    notice: Option<String>,
}

impl Client {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { wire: Wire::new(socket), notice: None }
    }

    /// One line for the user about a start through this connection, such as that a slower engine was taken.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Connects to a running container.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it is not running.
    pub fn connect(container: &Container) -> Result<Self, Error> {
        let socket = UnixStream::connect(container.control_socket())
            .kind(ErrorKind::State, || format!("Container {} is not running", container.config.name))?;
        Ok(Self::new(socket))
    }

    fn call(&mut self, request: &ControlRequest, streams: &Streams) -> Result<ControlReply, Error> {
        let fds = [&streams.stdin, &streams.stdout, &streams.stderr];
        let fds: Vec<_> = fds.into_iter().flatten().map(AsFd::as_fd).collect();
        self.wire.send(request, &fds)?;
        let reply: Option<Result<ControlReply, ControlError>> = self.wire.receive()?;
        reply
            .ok_or_else(|| Error::new(ErrorKind::Machine, "The container's supervisor ended without an answer"))?
            .map_err(Error::from)
    }

    fn call_done(&mut self, request: &ControlRequest) -> Result<(), Error> {
        match self.call(request, &Streams::default())? {
            ControlReply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) fn start(&mut self, streams: Streams, size: Option<WindowSize>) -> Result<(), Error> {
        match self.call(&ControlRequest::Start { streams: streams.mask(), size }, &streams)? {
            ControlReply::Started { notice } => {
                self.notice = notice;
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Joins the streams of the container's init.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it has ended.
    pub fn attach(&mut self, streams: Streams) -> Result<(), Error> {
        match self.call(&ControlRequest::Attach { streams: streams.mask() }, &streams)? {
            ControlReply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs another process; answers its exec id once execve succeeded.
    ///
    /// # Errors
    /// [`ErrorKind::CommandNotFound`], [`ErrorKind::CommandNotExecutable`], [`ErrorKind::State`].
    pub fn exec(
        &mut self,
        spec: Vec<u8>,
        user: UserSpec,
        size: Option<WindowSize>,
        streams: Streams,
    ) -> Result<String, Error> {
        match self.call(&ControlRequest::Exec { spec, user, size, streams: streams.mask() }, &streams)? {
            ControlReply::ExecStarted { exec } => Ok(exec),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until a process has ended and its output was delivered; `None`: the container's init.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown exec id.
    pub fn wait(&mut self, exec: Option<&str>) -> Result<Exit, Error> {
        match self.call(&ControlRequest::Wait { exec: exec.map(Into::into) }, &Streams::default())? {
            ControlReply::Exited(exit) => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// [`ErrorKind::State`] when it has ended.
    pub fn signal(&mut self, exec: Option<&str>, signal: i32) -> Result<(), Error> {
        self.call_done(&ControlRequest::Signal { exec: exec.map(Into::into), signal })
    }

    /// The stop signal, then SIGKILL after the timeout (seconds); returns when the container has ended.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn stop(&mut self, signal: Option<i32>, timeout: Option<u32>) -> Result<Exit, Error> {
        match self.call(&ControlRequest::Stop { signal, timeout }, &Streams::default())? {
            ControlReply::Exited(exit) => Ok(exit),
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// [`ErrorKind::State`] when the process has no terminal or has ended.
    pub fn resize(&mut self, exec: Option<&str>, size: WindowSize) -> Result<(), Error> {
        self.call_done(&ControlRequest::Resize { exec: exec.map(Into::into), size })
    }

    /// # Errors
    /// [`ErrorKind::State`].
    pub fn stats(&mut self) -> Result<Stats, Error> {
        match self.call(&ControlRequest::Stats, &Streams::default())? {
            ControlReply::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// [`ErrorKind::State`].
    pub fn top(&mut self) -> Result<Vec<ProcessInfo>, Error> {
        match self.call(&ControlRequest::Top, &Streams::default())? {
            ControlReply::Top(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// [`ErrorKind::State`] when it is paused already.
    pub fn pause(&mut self) -> Result<(), Error> {
        self.call_done(&ControlRequest::Pause)
    }

    /// # Errors
    /// [`ErrorKind::State`] when it is not paused.
    pub fn unpause(&mut self) -> Result<(), Error> {
        self.call_done(&ControlRequest::Unpause)
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] for a value that the guest's kernel refuses.
    pub fn update(&mut self, resources: Vec<u8>) -> Result<(), Error> {
        self.call_done(&ControlRequest::Update { resources })
    }
}

fn unexpected(reply: &ControlReply) -> Error {
    Error::new(ErrorKind::Internal, format!("The supervisor gave an answer that does not fit: {reply:?}"))
}
