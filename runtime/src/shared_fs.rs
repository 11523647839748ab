//! Directories and files of the host that a machine sees: `dewar-fs`, their server, and what it is told.
//!
//! The server is a process of its own in a jail of its own. It is given descriptors, never paths, over a control socket,
//! and ends when that socket or the machine's does.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recvmsg, sendmsg, socketpair,
};

use crate::engine::process::{Process, tail};
use crate::{Error, ErrorKind, Paths, ResultExt};

/// Bytes of an answer at most.
const ANSWER: usize = 4096;

/// A running server. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct SharedFs {
    socket: PathBuf,
    /// Requests strictly in turn.
    control: Mutex<OwnedFd>,
    /// Ended by the end of `control`, and at the latest with this process.
    process: Process,
}

impl SharedFs {
    /// Starts a server with nothing shared yet, which listens in `dir` for the machine's device.
    pub(crate) fn start(paths: &Paths, dir: &Path) -> Result<Self, Error> {
        let failed = || "Cannot start the server of shared directories".to_owned();
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).context(failed)?;
        let (socket, log) = (dir.join("fs.sock"), dir.join("fs.log"));
        let errors = std::fs::File::create(&log).context(failed)?;
        let mut command = Command::new(paths.bin.join("dewar-fs"));
        command.arg("--socket").arg(&socket).stdin(theirs).stdout(Stdio::null()).stderr(errors).current_dir("/");
        let process = Process::spawn(&mut command)?;
        // The command still holds the server's end: without this its death would go unnoticed.
        drop(command);
        let answer = receive(ours.as_fd());
        if answer.as_deref().ok() != Some("ready") {
            let text = format!("{}: {}", failed(), tail(&log, 2048).trim_end());
            return Err(Error::new(ErrorKind::Machine, text));
        }
        Ok(Self { socket, control: Mutex::new(ours), process })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.process.pid()
    }

    /// Where the machine's device connects, once.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Shares a directory, a file, or a mount that is attached nowhere, as an entry of the shared filesystem's root.
    pub(crate) fn add(&self, name: &str, tree: BorrowedFd<'_>, read_only: bool) -> Result<(), Error> {
        let mode = if read_only { "ro" } else { "rw" };
        self.ask(&format!("add\0{name}\0{mode}"), &[tree])
    }

    /// Makes an entry read-only from now on.
    pub(crate) fn seal(&self, name: &str) -> Result<(), Error> {
        self.ask(&format!("seal\0{name}"), &[])
    }

    /// Takes an entry away.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        self.ask(&format!("remove\0{name}"), &[])
    }

    fn ask(&self, request: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let broken = || "The server of shared directories does not answer".to_owned();
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(fds));
        }
        sendmsg(control.as_fd(), &[IoSlice::new(request.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL)
            .kind(ErrorKind::Machine, broken)?;
        match receive(control.as_fd()).kind(ErrorKind::Machine, broken)?.as_str() {
            "ok" => Ok(()),
            "" => Err(Error::new(ErrorKind::Machine, broken())),
            text => Err(Error::new(ErrorKind::Internal, format!("The server of shared directories refuses: {text}"))),
        }
    }
}

/// One packet; empty when the other end has hung up.
fn receive(socket: BorrowedFd<'_>) -> rustix::io::Result<String> {
    let mut bytes = [0; ANSWER];
    let count = loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut []);
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?.bytes,
        }
    };
    Ok(String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).into_owned())
}
