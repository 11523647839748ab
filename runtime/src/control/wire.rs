//! Frames with file descriptors beside them on a unix stream socket.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dewar_protocol::{FrameDecoder, encode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, ErrorKind, ResultExt};

const MAX_FDS: usize = 3;

/// One end of a control connection.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UnixStream,
    decoder: FrameDecoder,
    fds: VecDeque<OwnedFd>,
}

impl Wire {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: FrameDecoder::default(), fds: VecDeque::new() }
    }

    pub(crate) fn send<T: Serialize>(&mut self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let bytes = encode(message).context(|| "Cannot encode a control message".into())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::new(ErrorKind::Internal, "Too many descriptors for one control message"));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            match sendmsg(self.socket.as_fd(), &[IoSlice::new(&bytes[sent..])], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(n) => {
                    sent += n;
                    ancillary.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context(|| "The control connection broke".into()),
            }
        }
        Ok(())
    }

    /// The next message; `None` when the other side has hung up.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            let frame = self.decoder.next_frame().context(|| "A control message is damaged".into())?;
            if frame.is_some() {
                return Ok(frame);
            }
            let mut chunk = [0; 16 << 10];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            let n = match recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, flags) {
                Ok(message) => message.bytes,
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e).context(|| "The control connection broke".into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
            if n == 0 {
                return Ok(None);
            }
            self.decoder.push(&chunk[..n]);
        }
    }

    /// The next descriptor that came beside a message.
    pub(crate) fn take_fd(&mut self) -> Result<OwnedFd, Error> {
        self.fds
            .pop_front()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "A control message announced a descriptor that did not come"))
    }
}
