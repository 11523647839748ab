//! The socket to the device: any number of threads take requests from it in turn, carry them out beside each other, and
//! write whole replies in whatever order they are ready. One slow file holds up one thread.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use dewar_vmm_api::fs_link::{HEADER_SIZE, MAX_FRAME, ReplyHeader, RequestHeader};

use crate::file_system::FileSystem;
use crate::thread::Thread;
use crate::wire::Reply;

/// Bytes read ahead: most requests are shorter, so that one system call brings one whole.
const AHEAD: usize = 4096;

/// Both directions, each for one thread at a time.
#[derive(Debug)]
pub struct Link {
    requests: Mutex<BufReader<UnixStream>>,
    replies: Mutex<UnixStream>,
}

impl Link {
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn new(socket: UnixStream) -> io::Result<Self> {
        let requests = BufReader::with_capacity(AHEAD, socket.try_clone()?);
        Ok(Self { requests: Mutex::new(requests), replies: Mutex::new(socket) })
    }

    /// The next request. `None` at the end.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(RequestHeader, usize)>> {
        let mut socket = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut header = [0; HEADER_SIZE];
        match socket.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let header = RequestHeader::from_bytes(header);
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let request = buffer.get_mut(..len).ok_or(io::ErrorKind::InvalidData)?;
        socket.read_exact(request)?;
        Ok(Some((header, len)))
    }

    fn send(&self, tag: u64, reply: &[u8]) -> io::Result<()> {
        let len = u32::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let header = ReplyHeader { len, tag }.to_bytes();
        let mut socket = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        // Almost always all of it.
        let sent = socket.write_vectored(&[IoSlice::new(&header), IoSlice::new(reply)])?;
        socket.write_all(header.get(sent..).unwrap_or_default())?;
        socket.write_all(reply.get(sent.saturating_sub(HEADER_SIZE)..).unwrap_or_default())
    }

    /// Serves requests in the calling thread until the device hangs up.
    ///
    /// # Errors
    /// When the socket fails, or the device breaks the rules.
    pub fn serve(&self, file_system: &FileSystem, thread: &Thread) -> io::Result<()> {
        let capacity = usize::try_from(MAX_FRAME).unwrap_or_default();
        let mut buffer = vec![0; capacity];
        let mut reply = Reply::new(capacity);
        while let Some((header, len)) = self.receive(&mut buffer)? {
            reply.restart(usize::try_from(header.max_reply).unwrap_or(usize::MAX));
            file_system.serve(thread, buffer.get(..len).unwrap_or_default(), &mut reply);
            if header.max_reply > 0 {
                self.send(header.tag, reply.as_bytes())?;
            }
        }
        Ok(())
    }
}
