//! The standard streams of a process: pipes between it and the agent. (Not sockets: those cannot be opened again as
//! `/dev/stdout`.) A terminal is opened by the child itself, in its own devpts.

use std::os::fd::OwnedFd;

use dewar_protocol::{Stdio, StreamId};
use rustix::{
    fs::{CWD, FileType, Gid, Mode, OFlags, Uid, fchown, fcntl_setfl, fstat, openat},
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
};

use crate::error::{Doing, Failure, Result};

/// What a pipe should hold, so that a busy process and a busy connection seldom wait for each other.
const PIPE_SIZE: usize = 1 << 20;

/// The child's side.
pub enum ChildStdio {
    Terminal,
    Streams([OwnedFd; 3]),
}

/// The agent's side of one stream.
#[derive(Debug)]
pub struct AgentEnd {
    pub stream: StreamId,
    pub fd: OwnedFd,
    pub direction: Direction,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the host to the process.
    Input,
    /// From the process to the host.
    Output,
}

/// Checks that the streams make sense together.
pub fn check(stdio: &Stdio) -> Result<()> {
    if stdio.terminal.is_some() && stdio.stderr.is_some() {
        return Err(Failure::invalid("A process with a terminal has no stream for its errors"));
    }
    let mut ids: Vec<_> = [stdio.stdin, stdio.stdout, stdio.stderr].into_iter().flatten().collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == count { Ok(()) } else { Err(Failure::invalid("Two streams of a process have the same id")) }
}

/// Makes the pipes.
pub fn make(stdio: &Stdio) -> Result<(ChildStdio, Vec<AgentEnd>)> {
    if stdio.terminal.is_some() {
        return Ok((ChildStdio::Terminal, Vec::new()));
    }
    let mut ends = Vec::new();
    let input = one(stdio.stdin, Direction::Input, &mut ends)?;
    let output = one(stdio.stdout, Direction::Output, &mut ends)?;
    let errors = one(stdio.stderr, Direction::Output, &mut ends)?;
    Ok((ChildStdio::Streams([input, output, errors]), ends))
}

fn one(stream: Option<StreamId>, direction: Direction, ends: &mut Vec<AgentEnd>) -> Result<OwnedFd> {
    let Some(stream) = stream else {
        return openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "Opening /dev/null failed".into());
    };
    let failed = || "Making a pipe failed".to_owned();
    let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).doing(failed)?;
    // A smaller pipe works as well.
    let _ = fcntl_setpipe_size(&writing, PIPE_SIZE);
    let (ours, theirs) = match direction {
        Direction::Input => (writing, reading),
        Direction::Output => (reading, writing),
    };
    // Only our side: the flag belongs to the open file, and the process expects its own to block.
    fcntl_setfl(&ours, OFlags::NONBLOCK).doing(failed)?;
    ends.push(AgentEnd { stream, fd: ours, direction });
    Ok(theirs)
}

/// Gives the child's side to the root of its user namespace, which otherwise could not pass it on.
pub fn give_to(stdio: &ChildStdio, (uid, gid): (u32, u32)) -> Result<()> {
    let ChildStdio::Streams(streams) = stdio else { return Ok(()) };
    for stream in streams {
        let failed = || "Giving the standard streams to the container failed".to_owned();
        if FileType::from_raw_mode(fstat(stream).doing(failed)?.st_mode) == FileType::Fifo {
            fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).doing(failed)?;
        }
    }
    Ok(())
}

/// The agent's two sides of a terminal, once the child has handed it over.
pub fn terminal_ends(stdio: &Stdio, master: &OwnedFd) -> Result<Vec<AgentEnd>> {
    let failed = || "Taking over the terminal failed".to_owned();
    fcntl_setfl(master, OFlags::NONBLOCK | OFlags::RDWR).doing(failed)?;
    let wanted = [(stdio.stdin, Direction::Input), (stdio.stdout, Direction::Output)];
    let mut ends = Vec::new();
    for (stream, direction) in wanted {
        if let Some(stream) = stream {
            ends.push(AgentEnd { stream, fd: master.try_clone().doing(failed)?, direction });
        }
    }
    Ok(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_must_differ_and_fit_a_terminal() {
        let id = |n| Some(StreamId(n));
        let stdio = |terminal, stdin, stdout, stderr| Stdio { terminal, stdin, stdout, stderr };
        assert!(check(&stdio(None, id(1), id(2), id(3))).is_ok());
        assert!(check(&stdio(None, id(1), id(1), None)).is_err());
        let size = Some(dewar_protocol::WindowSize::default());
        assert!(check(&stdio(size, id(1), id(2), None)).is_ok());
        assert!(check(&stdio(size, id(1), id(2), id(3))).is_err());
    }

    #[test]
    fn streams_that_are_not_wanted_make_no_pipes() {
        let stdio = Stdio { terminal: None, stdin: None, stdout: Some(StreamId(7)), stderr: None };
        let (_, ends) = make(&stdio).expect("makes");
        assert_eq!(ends.len(), 1);
        assert_eq!((ends[0].stream, ends[0].direction), (StreamId(7), Direction::Output));
    }
}
