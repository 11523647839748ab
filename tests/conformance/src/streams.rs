//! The two output pipes of a process, read without ever waiting for their end: whoever inherited them may live on.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

/// Longer than anything here takes on the slowest machine, an emulated one.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Pipe {
    reader: File,
    open: bool,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new() -> Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
        rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK).context("cannot set up a pipe")?;
        Ok((Self { reader: reader.into(), open: true, bytes: Vec::new() }, writer))
    }

    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 65536];
        while self.open {
            match self.reader.read(&mut buffer) {
                Ok(0) => self.open = false,
                Ok(read) => self.bytes.extend_from_slice(buffer.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot read an output"),
            }
        }
        Ok(())
    }
}

/// What a process writes.
#[derive(Debug)]
pub struct Streams {
    out: Pipe,
    err: Pipe,
}

impl Streams {
    /// Pipes, and the ends to write to: standard output and error.
    pub fn new() -> Result<(Self, OwnedFd, OwnedFd)> {
        let (out, out_writer) = Pipe::new()?;
        let (err, err_writer) = Pipe::new()?;
        Ok((Self { out, err }, out_writer, err_writer))
    }

    pub fn out(&self) -> &[u8] {
        &self.out.bytes
    }

    pub fn err(&self) -> &[u8] {
        &self.err.bytes
    }

    /// Forgets what has been read.
    pub fn clear(&mut self) {
        self.out.bytes.clear();
        self.err.bytes.clear();
    }

    /// Reads until `done` says so (false) or a process (its pidfd) has ended, with all that it had written (true).
    pub fn pump(&mut self, what: &str, process: BorrowedFd<'_>, mut done: impl FnMut(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // In this order: what was written before the end is there after it.
            let ended = ready(process)?;
            self.out.drain()?;
            self.err.drain()?;
            if done(self) {
                return Ok(false);
            }
            if ended {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let [out, err] = [self.out(), self.err()].map(String::from_utf8_lossy);
                bail!("{what}: nothing within {} s\n--- stdout\n{out}\n--- stderr\n{err}", PATIENCE.as_secs());
            }
            let mut entries = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
            let pipes = [&self.out, &self.err].into_iter().filter(|pipe| pipe.open);
            entries.extend(pipes.map(|pipe| PollFd::new(&pipe.reader, PollFlags::IN)));
            wait(&mut entries, left)?;
        }
    }
}

fn ready(process: BorrowedFd<'_>) -> Result<bool> {
    wait(&mut [PollFd::from_borrowed_fd(process, PollFlags::IN)], Duration::ZERO)
}

/// Polls; true when there is something.
pub fn wait(entries: &mut [PollFd<'_>], time: Duration) -> Result<bool> {
    let seconds = time.as_secs().try_into().unwrap_or(i64::MAX);
    match poll(entries, Some(&Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() })) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error).context("cannot poll"),
    }
}
