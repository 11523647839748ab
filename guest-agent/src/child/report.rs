//! The messages between a child and the agent, one packet each, over a socket pair that execve closes.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use dewar_protocol::ErrorKind;
use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, send, sendmsg, socketpair,
    },
};

use super::REPORT;
use crate::{
    error::{Doing, Failure, Result},
    sys::process,
};

/// What a child says.
#[derive(Debug)]
pub enum Message {
    /// An init has everything but its start signal.
    Ready,
    /// The master side of the process's terminal.
    Terminal(OwnedFd),
    /// A process that was made in the agent's stead, by its pidfd.
    Process(OwnedFd),
    Failed(Failure),
}

/// Longest packet.
const MAX_PACKET: usize = 4096;
const GO: u8 = b'G';
const END: u8 = b'K';

/// Both ends of a new report socket: the agent's, non-blocking on its reads, and the child's.
pub fn pair() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The child's own end.
pub(super) fn own_end() -> BorrowedFd<'static> {
    // SAFETY: `leave_agent` puts the report socket at this number and nothing in the child closes it while it is used.
    unsafe { BorrowedFd::borrow_raw(REPORT) }
}

pub(super) fn ready() -> Result<()> {
    send(own_end(), b"R", SendFlags::NOSIGNAL).doing(|| "Reporting to the agent failed".into())?;
    Ok(())
}

pub(super) fn failure(failure: &Failure) {
    failure_to(own_end(), failure);
}

/// Reports a failure over any report socket.
pub fn failure_to(socket: impl AsFd, failure: &Failure) {
    let mut packet = vec![b'E', kind_number(failure.kind)];
    packet.extend_from_slice(failure.sentence().as_bytes());
    packet.truncate(MAX_PACKET);
    // The agent sees the end of the child in any case.
    let _ = send(socket, &packet, SendFlags::NOSIGNAL);
}

pub(super) fn terminal(master: BorrowedFd<'_>) -> Result<()> {
    descriptor(own_end(), b"T", master).doing(|| "Handing the terminal to the agent failed".into())
}

/// Hands the agent a process that was made in its stead.
pub fn process_to(socket: impl AsFd, pidfd: BorrowedFd<'_>) -> Result<()> {
    descriptor(socket, b"P", pidfd).doing(|| "Handing the process to the agent failed".into())
}

fn descriptor(socket: impl AsFd, packet: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fd];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Waits for the agent's next go-ahead. A child whose agent is gone ends here, and one that is sent a signal before it is
/// started ends as if by that signal: as the first process of a PID namespace it would not, since it has no handlers.
pub(super) fn wait_go() -> Result<()> {
    let mut packet = [0_u8; 2];
    loop {
        match recv(own_end(), &mut packet[..], RecvFlags::empty()) {
            Ok((1, _)) if packet[0] == GO => return Ok(()),
            Ok((2, _)) if packet[0] == END => process::exit_now(i32::from(packet[1]).saturating_add(128)),
            Err(Errno::INTR) => {}
            _ => return Err(Failure::state("The container was not started")),
        }
    }
}

/// The agent's go-ahead.
pub fn go(socket: impl AsFd) -> rustix::io::Result<()> {
    send(socket, &[GO], SendFlags::NOSIGNAL).map(drop)
}

/// Ends a child that waits for a go-ahead, as if by a signal.
pub fn end(socket: impl AsFd, signal: u8) -> rustix::io::Result<()> {
    send(socket, &[END, signal], SendFlags::NOSIGNAL).map(drop)
}

/// The next message of a child; `None` when it has closed its end. `Err(AGAIN)`: nothing yet.
pub fn next(socket: impl AsFd) -> rustix::io::Result<Option<Message>> {
    let mut packet = [0_u8; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::PROTO);
    }
    let packet = packet.get(..received.bytes).unwrap_or_default();
    match (packet, descriptor) {
        ([], _) => Ok(None),
        ([b'R'], _) => Ok(Some(Message::Ready)),
        ([b'T'], Some(master)) => Ok(Some(Message::Terminal(master))),
        ([b'P'], Some(pidfd)) => Ok(Some(Message::Process(pidfd))),
        ([b'E', kind, text @ ..], _) => {
            let sentence = String::from_utf8_lossy(text).into_owned();
            Ok(Some(Message::Failed(Failure::new(kind_of(*kind), sentence))))
        }
        _ => Err(Errno::PROTO),
    }
}

const KINDS: [ErrorKind; 8] = [
    ErrorKind::Internal,
    ErrorKind::NotFound,
    ErrorKind::Exists,
    ErrorKind::State,
    ErrorKind::Invalid,
    ErrorKind::CommandNotFound,
    ErrorKind::CommandNotExecutable,
    ErrorKind::Unsupported,
];

fn kind_number(kind: ErrorKind) -> u8 {
    KINDS.iter().position(|k| *k == kind).and_then(|n| u8::try_from(n).ok()).unwrap_or_default()
}

fn kind_of(number: u8) -> ErrorKind {
    KINDS.get(usize::from(number)).copied().unwrap_or(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_socket() {
        for kind in KINDS {
            assert_eq!(kind_of(kind_number(kind)), kind);
        }
    }

    #[test]
    fn messages_arrive_one_by_one_and_then_the_end() {
        let (agent, child) = pair().expect("a socket pair");
        assert_eq!(next(&agent).expect_err("nothing yet"), Errno::AGAIN);
        send(&child, b"R", SendFlags::empty()).expect("sends");
        send(&child, b"E\x05no such command", SendFlags::empty()).expect("sends");
        drop(child);
        assert!(matches!(next(&agent), Ok(Some(Message::Ready))));
        let Ok(Some(Message::Failed(failure))) = next(&agent) else { panic!("expected a failure") };
        assert_eq!((failure.kind, failure.doing.as_str()), (ErrorKind::CommandNotFound, "no such command"));
        assert!(matches!(next(&agent), Ok(None)));
    }

    #[test]
    fn an_unknown_message_is_an_error() {
        let (agent, child) = pair().expect("a socket pair");
        send(&child, b"T", SendFlags::empty()).expect("sends");
        assert_eq!(next(&agent).expect_err("no descriptor came with it"), Errno::PROTO);
    }
}
