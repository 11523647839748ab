//! The connection to the host, non-blocking after the handshake.

use std::os::fd::OwnedFd;

use dewar_protocol::{AgentError, Call, ErrorKind, FrameDecoder, FrameError, GuestMessage, Reply, encode};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};

/// Why the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("The host closed the connection")]
    Closed,
    #[error("The connection to the host failed")]
    Socket(#[from] Errno),
    #[error("The host sent what is no call")]
    Frame(#[from] FrameError),
}

pub struct Connection {
    socket: OwnedFd,
    decoder: FrameDecoder,
    outgoing: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, decoder: FrameDecoder::default(), outgoing: Vec::new(), sent: 0 }
    }

    /// Takes every call that has arrived.
    pub fn calls(&mut self, scratch: &mut [u8]) -> Result<Vec<Call>, RpcError> {
        let mut calls = Vec::new();
        loop {
            match recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(RpcError::Closed),
                Ok((count, _)) => self.decoder.push(scratch.get(..count).unwrap_or_default()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(calls),
                Err(e) => return Err(e.into()),
            }
            while let Some(call) = self.decoder.next_frame()? {
                calls.push(call);
            }
        }
    }

    /// Queues a reply and sends what can be sent.
    pub fn reply(&mut self, id: u64, result: Result<Reply, AgentError>) -> Result<(), RpcError> {
        let frame = match encode(&GuestMessage::Reply { id, result }) {
            Ok(frame) => frame,
            Err(e) => {
                let error = AgentError { kind: ErrorKind::Internal, message: e.to_string() };
                encode(&GuestMessage::Reply { id, result: Err(error) })?
            }
        };
        self.outgoing.extend_from_slice(&frame);
        self.flush()
    }

    /// Sends what is queued, as far as the host takes it.
    pub fn flush(&mut self) -> Result<(), RpcError> {
        while !self.is_flushed() {
            let rest = self.outgoing.get(self.sent..).unwrap_or_default();
            match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    pub fn is_flushed(&self) -> bool {
        self.sent >= self.outgoing.len()
    }

    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }
}

#[cfg(test)]
mod tests {
    use dewar_protocol::{Request, read_frame, write_frame};
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Connection, std::os::unix::net::UnixStream) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket pair");
        (Connection::new(ours), theirs.into())
    }

    #[test]
    fn calls_come_in_and_replies_go_out() {
        let (mut connection, mut host) = pair();
        let mut scratch = [0; 64];
        for id in 0..3 {
            write_frame(&mut host, &Call { id, request: Request::GuestInfo }).expect("writes");
        }
        let ids: Vec<_> = connection.calls(&mut scratch).expect("reads").iter().map(|call| call.id).collect();
        assert_eq!(ids, [0, 1, 2]);
        connection.reply(2, Ok(Reply::Done)).expect("replies");
        assert!(connection.is_flushed());
        let GuestMessage::Reply { id, result } = read_frame(&mut host).expect("reads").expect("a frame");
        assert!(id == 2 && matches!(result, Ok(Reply::Done)));
        drop(host);
        assert!(matches!(connection.calls(&mut scratch), Err(RpcError::Closed)));
    }

    #[test]
    fn a_reply_too_long_for_a_frame_is_an_error_reply() {
        let (mut connection, mut host) = pair();
        let message = "x".repeat(dewar_protocol::MAX_FRAME);
        connection.reply(7, Err(AgentError { kind: ErrorKind::Invalid, message })).expect("replies");
        let GuestMessage::Reply { id, result } = read_frame(&mut host).expect("reads").expect("a frame");
        assert_eq!((id, result.err().map(|e| e.kind)), (7, Some(ErrorKind::Internal)));
    }

    #[test]
    fn replies_wait_for_a_slow_host() {
        let (mut connection, mut host) = pair();
        let message = "y".repeat(1 << 20);
        for id in 0..4 {
            let error = AgentError { kind: ErrorKind::Invalid, message: message.clone() };
            connection.reply(id, Err(error)).expect("replies");
        }
        assert!(!connection.is_flushed());
        let reader = std::thread::spawn(move || {
            (0..4).map(|_| read_frame::<GuestMessage>(&mut host).expect("reads").is_some()).collect::<Vec<_>>()
        });
        while !connection.is_flushed() {
            connection.flush().expect("flushes");
        }
        assert_eq!(reader.join().expect("reads"), [true; 4]);
    }
}
