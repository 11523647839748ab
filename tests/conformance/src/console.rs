//! The console socket: where a runtime sends the terminal of a process.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::streams::{PATIENCE, wait};

/// A socket that waits for a terminal.
#[derive(Debug)]
pub struct Console {
    listener: UnixListener,
    pub path: PathBuf,
}

impl Console {
    /// Listens below a folder.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("tty.sock");
        let listener = UnixListener::bind(&path).context("cannot listen")?;
        Ok(Self { listener, path })
    }

    /// Takes the terminal's master.
    ///
    /// # Errors
    /// When none comes.
    pub fn receive(&self) -> Result<Terminal> {
        ensure!(wait(&mut [PollFd::new(&self.listener, PollFlags::IN)], PATIENCE)?, "nobody called the console socket");
        let (stream, _) = self.listener.accept()?;
        ensure!(wait(&mut [PollFd::new(&stream, PollFlags::IN)], PATIENCE)?, "nothing came on the console socket");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let master: Option<OwnedFd> = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = master.context("no descriptor came on the console socket")?;
        ensure!(rustix::termios::isatty(&master), "what came on the console socket is no terminal");
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        Ok(Terminal { master: master.into(), bytes: Vec::new() })
    }
}

/// The master of a process's terminal.
#[derive(Debug)]
pub struct Terminal {
    pub master: File,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Reads until a text has come; everything up to now.
    ///
    /// # Errors
    /// When it does not come.
    pub fn says(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let so_far = String::from_utf8_lossy(&self.bytes).into_owned();
            if so_far.contains(text) {
                return Ok(so_far);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the terminal did not say {text:?} but {so_far:?}");
            wait(&mut [PollFd::new(&self.master, PollFlags::IN)], left)?;
            let mut buffer = [0; 4096];
            match self.master.read(&mut buffer) {
                Ok(read @ 1..) => self.bytes.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // EIO: nobody holds the other side any more.
                Ok(_) | Err(_) => bail!("the terminal closed and did not say {text:?} but {so_far:?}"),
            }
        }
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn types(&mut self, text: &str) -> Result<()> {
        self.master.write_all(text.as_bytes()).context("cannot type")
    }
}
