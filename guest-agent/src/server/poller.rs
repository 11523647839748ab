//! The event queue: one edge-triggered epoll instance, and what its events mean.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    Rpc,
    Listener,
    Signals,
    /// A stream that has not said its id yet.
    Handshake(u64),
    /// A child's report socket.
    Report(u64),
    /// The side of a pump that it reads.
    PumpSource(u64),
    /// The side of a pump that it writes.
    PumpTarget(u64),
    /// A container's notify socket, by the number of its init.
    Notify(u64),
}

const KIND_SHIFT: u32 = 56;
const NUMBER: u64 = (1 << KIND_SHIFT) - 1;

impl Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Rpc => (0, 0),
            Self::Listener => (1, 0),
            Self::Signals => (2, 0),
            Self::Handshake(number) => (3, number),
            Self::Report(number) => (4, number),
            Self::PumpSource(number) => (5, number),
            Self::PumpTarget(number) => (6, number),
            Self::Notify(number) => (7, number),
        };
        (kind << KIND_SHIFT) | (number & NUMBER)
    }

    fn decode(data: u64) -> Option<Self> {
        let number = data & NUMBER;
        Some(match data >> KIND_SHIFT {
            0 => Self::Rpc,
            1 => Self::Listener,
            2 => Self::Signals,
            3 => Self::Handshake(number),
            4 => Self::Report(number),
            5 => Self::PumpSource(number),
            6 => Self::PumpTarget(number),
            7 => Self::Notify(number),
            _ => return None,
        })
    }
}

pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

/// Events taken at a time.
const BATCH: usize = 64;

impl Poller {
    pub fn new() -> rustix::io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a descriptor until it is closed. Events come once for every change.
    pub fn watch(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> rustix::io::Result<()> {
        epoll::add(&self.epoll, fd, EventData::new_u64(token.encode()), flags | EventFlags::ET)
    }

    /// Gives a watched descriptor a new meaning. What has happened to it already is told again.
    pub fn rewatch(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> rustix::io::Result<()> {
        epoll::modify(&self.epoll, fd, EventData::new_u64(token.encode()), flags | EventFlags::ET)
    }

    /// Waits for events, or for the time to pass; `None` waits for ever.
    pub fn wait(&mut self, timeout: Option<Duration>) -> rustix::io::Result<Vec<(Token, EventFlags)>> {
        self.events.clear();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        Ok(self.events.iter().filter_map(|event| Some((Token::decode(event.data.u64())?, event.flags))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let tokens = [
            Token::Rpc,
            Token::Listener,
            Token::Signals,
            Token::Handshake(1),
            Token::Report(NUMBER),
            Token::PumpSource(3),
            Token::PumpTarget(4),
            Token::Notify(5),
        ];
        for token in tokens {
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
        assert_eq!(Token::decode(u64::MAX), None);
    }
}
