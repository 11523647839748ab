//! Streams on their way to a process: connections that have not said their id, connections no process has claimed, and
//! processes whose stream has not come.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::OwnedFd,
};

use dewar_protocol::StreamId;
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

use crate::container::stdio::{AgentEnd, Direction};

/// Most connections that wait for a process, named or not.
const MAX_WAITING: usize = 256;

/// A connection that is saying which stream it is.
struct Handshake {
    socket: OwnedFd,
    id: [u8; 8],
    read: usize,
}

/// The agent's end of a process's stream.
#[derive(Debug)]
pub struct Claim {
    pub end: AgentEnd,
    pub owner: u64,
    /// The process has ended: what its pipe holds is all there is.
    pub ended: bool,
}

#[derive(Default)]
pub struct Streams {
    handshakes: BTreeMap<u64, Handshake>,
    unclaimed: HashMap<StreamId, OwnedFd>,
    claims: HashMap<StreamId, Claim>,
}

impl Streams {
    /// Takes a new connection; `false` when too many wait already, and it is closed.
    pub fn accept(&mut self, number: u64, socket: OwnedFd) -> bool {
        if self.handshakes.len().saturating_add(self.unclaimed.len()) >= MAX_WAITING {
            return false;
        }
        self.handshakes.insert(number, Handshake { socket, id: [0; 8], read: 0 });
        true
    }

    /// Reads a connection's id as far as it has come. The connection and its claim, once both are there.
    pub fn advance(&mut self, number: u64) -> Option<(OwnedFd, Claim)> {
        let handshake = self.handshakes.get_mut(&number)?;
        while let Some(missing) = handshake.id.get_mut(handshake.read..).filter(|missing| !missing.is_empty()) {
            match recv(&handshake.socket, missing, RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => handshake.read = handshake.read.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                _ => {
                    self.handshakes.remove(&number);
                    return None;
                }
            }
        }
        let handshake = self.handshakes.remove(&number)?;
        let id = StreamId(u64::from_le_bytes(handshake.id));
        match self.claims.remove(&id) {
            Some(claim) => Some((handshake.socket, claim)),
            None => {
                // A second connection with an id that waits already is not what the host's runtime makes.
                self.unclaimed.entry(id).or_insert(handshake.socket);
                None
            }
        }
    }

    /// Asks for a stream on behalf of a process; at once if its connection is there.
    pub fn claim(&mut self, claim: Claim) -> Option<(OwnedFd, Claim)> {
        match self.unclaimed.remove(&claim.end.stream) {
            Some(socket) => Some((socket, claim)),
            None => {
                self.claims.insert(claim.end.stream, claim);
                None
            }
        }
    }

    /// The claims of a process that still wait.
    pub fn claims_of(&mut self, owner: u64) -> impl Iterator<Item = &mut Claim> {
        self.claims.values_mut().filter(move |claim| claim.owner == owner)
    }

    /// Closes a process's input if it still waits.
    pub fn forget_input(&mut self, owner: u64) {
        self.claims.retain(|_, claim| claim.owner != owner || claim.end.direction != Direction::Input);
    }

    /// Closes what a process still waits for.
    pub fn forget(&mut self, owner: u64) {
        self.claims.retain(|_, claim| claim.owner != owner);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    fn claim(id: u64) -> Claim {
        let (_, writing) = rustix::pipe::pipe().expect("a pipe");
        let end = AgentEnd { stream: StreamId(id), fd: writing, direction: Direction::Input };
        Claim { end, owner: 9, ended: false }
    }

    #[test]
    fn a_connection_may_come_before_or_after_its_process() {
        let mut streams = Streams::default();
        let (early, mut host) = UnixStream::pair().expect("a socket pair");
        assert!(streams.accept(1, early.into()));
        host.write_all(&5_u64.to_le_bytes()[..3]).expect("writes");
        assert!(streams.advance(1).is_none());
        host.write_all(&5_u64.to_le_bytes()[3..]).expect("writes");
        assert!(streams.advance(1).is_none());
        assert!(streams.claim(claim(5)).is_some());

        assert!(streams.claim(claim(6)).is_none());
        let (late, mut host) = UnixStream::pair().expect("a socket pair");
        assert!(streams.accept(2, late.into()));
        host.write_all(&6_u64.to_le_bytes()).expect("writes");
        let (_, claimed) = streams.advance(2).expect("claimed");
        assert_eq!((claimed.end.stream, claimed.owner), (StreamId(6), 9));
    }

    #[test]
    fn waiting_connections_are_bounded_and_broken_ones_forgotten() {
        let mut streams = Streams::default();
        let mut hosts = Vec::new();
        for number in 0..256 {
            let (socket, host) = UnixStream::pair().expect("a socket pair");
            assert!(streams.accept(number, socket.into()));
            hosts.push(host);
        }
        let (socket, _host) = UnixStream::pair().expect("a socket pair");
        assert!(!streams.accept(256, socket.into()));
        hosts.remove(0);
        assert!(streams.advance(0).is_none());
        let (socket, _host) = UnixStream::pair().expect("a socket pair");
        assert!(streams.accept(257, socket.into()));
    }
}
