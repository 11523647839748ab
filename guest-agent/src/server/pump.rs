//! Moving the bytes of one stream, with backpressure: what the target does not take stays in the source.
//!
//! A pump ends when its source does and everything read has been written, or when its target takes no more. Its
//! descriptors close with it: the end of a process's input is the closing of a pipe, and a reader that went away is
//! a closed pipe, which gives the writer SIGPIPE.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    io::{Errno, ioctl_fionread, read, write},
    net::{Shutdown, shutdown},
};

use crate::container::stdio::Direction;

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// An event will tell when to go on.
    Blocked,
    /// There is more to do at once; others have their turn first.
    More,
    Finished,
}

/// Buffers moved in one turn.
const TURN: usize = 16;
/// Most that is still read from a terminal whose process has ended.
const TERMINAL_REST: u64 = 1 << 20;

#[derive(Debug)]
pub struct Pump {
    source: OwnedFd,
    target: OwnedFd,
    pub direction: Direction,
    /// The process it belongs to.
    pub owner: u64,
    /// Read and not yet written; empty but when the target is full.
    pending: Vec<u8>,
    written: usize,
    /// How much may still be read. Set when the process has ended: others may hold its pipe open for ever.
    rest: Option<u64>,
}

impl Pump {
    /// A pump between a stream's connection and the agent's end of a process's pipe or terminal.
    pub fn new(direction: Direction, owner: u64, stream: OwnedFd, process: OwnedFd) -> Self {
        let (source, target) = match direction {
            Direction::Input => (stream, process),
            Direction::Output => (process, stream),
        };
        Self { source, target, direction, owner, pending: Vec::new(), written: 0, rest: None }
    }

    pub fn source(&self) -> &OwnedFd {
        &self.source
    }

    pub fn target(&self) -> &OwnedFd {
        &self.target
    }

    /// From now on, only what has been written (or has arrived) already is moved.
    pub fn end_source(&mut self) {
        let waiting = match self.direction {
            Direction::Input => u64::MAX,
            Direction::Output if rustix::termios::isatty(&self.source) => TERMINAL_REST,
            Direction::Output => ioctl_fionread(&self.source).unwrap_or(0),
        };
        self.rest = Some(waiting);
    }

    /// Moves what can be moved. `scratch` is where bytes pass through.
    pub fn run(&mut self, scratch: &mut [u8]) -> Progress {
        for _ in 0..TURN {
            match self.write_pending() {
                Ok(true) => {}
                Ok(false) => return Progress::Blocked,
                Err(_) => return Progress::Finished,
            }
            let limit = self.rest.map_or(scratch.len(), |rest| usize::try_from(rest).unwrap_or(usize::MAX));
            let space = scratch.len().min(limit);
            let Some(space) = scratch.get_mut(..space).filter(|space| !space.is_empty()) else {
                return self.finish();
            };
            let count = match read(&self.source, space) {
                Ok(count) if count > 0 => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) if self.rest.is_none() => return Progress::Blocked,
                // The end, or EIO: how a terminal says it.
                _ => return self.finish(),
            };
            self.rest = self.rest.map(|rest| rest.saturating_sub(count as u64));
            if self.pass_on(scratch.get(..count).unwrap_or_default()).is_err() {
                return Progress::Finished;
            }
        }
        Progress::More
    }

    /// Writes bytes just read, and keeps what the target does not take.
    fn pass_on(&mut self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        while !bytes.is_empty() {
            match write(&self.target, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.pending.extend_from_slice(bytes);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether nothing is pending any more.
    fn write_pending(&mut self) -> rustix::io::Result<bool> {
        while let Some(bytes) = self.pending.get(self.written..).filter(|bytes| !bytes.is_empty()) {
            match write(&self.target, bytes) {
                Ok(count) => self.written = self.written.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.pending.clear();
        self.written = 0;
        Ok(true)
    }

    fn finish(&self) -> Progress {
        if self.direction == Direction::Output {
            // Fails when the host closed first, which is as good.
            let _ = shutdown(&self.target, Shutdown::Write);
        }
        Progress::Finished
    }

    /// Whether the reader of an output has gone away, so that the process is to be told by SIGPIPE.
    pub fn reader_is_gone(&self) -> bool {
        self.direction == Direction::Output && !crate::sys::vsock::peer_receives(self.target.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use rustix::{
        io::ioctl_fionbio,
        pipe::{PipeFlags, pipe_with},
    };

    use super::*;

    struct Rig {
        pump: Pump,
        host: UnixStream,
        process: std::fs::File,
    }

    fn rig(direction: Direction) -> Rig {
        let (stream, host) = UnixStream::pair().expect("a socket pair");
        stream.set_nonblocking(true).expect("sets");
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (ours, theirs) = if direction == Direction::Input { (writing, reading) } else { (reading, writing) };
        ioctl_fionbio(&ours, true).expect("sets");
        Rig { pump: Pump::new(direction, 1, stream.into(), ours), host, process: theirs.into() }
    }

    #[test]
    fn output_and_its_end_reach_the_host() {
        let Rig { mut pump, mut host, mut process } = rig(Direction::Output);
        let mut scratch = [0; 1024];
        process.write_all(b"hello").expect("writes");
        assert_eq!(pump.run(&mut scratch), Progress::Blocked);
        drop(process);
        assert_eq!(pump.run(&mut scratch), Progress::Finished);
        let mut seen = String::new();
        host.read_to_string(&mut seen).expect("reads to the end");
        assert_eq!(seen, "hello");
    }

    #[test]
    fn the_end_of_input_closes_the_pipe() {
        let Rig { mut pump, mut host, mut process } = rig(Direction::Input);
        host.write_all(b"x\n").expect("writes");
        host.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert_eq!(pump.run(&mut [0; 64]), Progress::Finished);
        drop(pump);
        let mut seen = String::new();
        process.read_to_string(&mut seen).expect("reads to the end");
        assert_eq!(seen, "x\n");
    }

    #[test]
    fn after_the_process_only_what_it_wrote_is_read() {
        let Rig { mut pump, mut host, process } = rig(Direction::Output);
        let background = process.try_clone().expect("clones");
        (&process).write_all(b"last words").expect("writes");
        drop(process);
        pump.end_source();
        (&background).write_all(b"more").expect("writes");
        assert_eq!(pump.run(&mut [0; 64]), Progress::Finished);
        drop(pump);
        let mut seen = String::new();
        host.read_to_string(&mut seen).expect("reads to the end");
        assert_eq!(seen, "last words");
    }

    #[test]
    fn a_reader_that_went_away_is_noticed() {
        let Rig { pump, host, process: _process } = rig(Direction::Output);
        assert!(!pump.reader_is_gone());
        drop(host);
        assert!(pump.reader_is_gone());
    }

    #[test]
    fn nothing_is_lost_under_backpressure() {
        let Rig { mut pump, mut host, mut process } = rig(Direction::Output);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let writer = std::thread::spawn(move || process.write_all(&copy));
        let reader = std::thread::spawn(move || {
            let mut seen = Vec::new();
            host.read_to_end(&mut seen).map(|_| seen)
        });
        let mut scratch = vec![0; 65536];
        while pump.run(&mut scratch) != Progress::Finished {
            std::thread::yield_now();
        }
        drop(pump);
        writer.join().expect("joins").expect("writes");
        assert!(reader.join().expect("joins").expect("reads") == sent);
    }
}
