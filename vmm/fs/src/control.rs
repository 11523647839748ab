//! The socket to the runtime, which says what the guest shall see. A request is one packet of text, with a descriptor beside
//! it where it needs one, and is answered by one packet: `ok`, or what went wrong.
//!
//! * `add NAME ro|rw` with the directory or file (`O_PATH` will do; a mount made by `open_tree` keeps what is mounted below it)
//! * `remove NAME`: when that is answered, nothing below the entry is open any more

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use crate::file_system::FileSystem;
use crate::host;

/// Bytes of a request.
const MAX_REQUEST: usize = 512;

/// Serves the runtime until it hangs up.
///
/// # Errors
/// When the socket fails.
pub fn run(file_system: &FileSystem, socket: impl AsFd) -> io::Result<()> {
    loop {
        let mut request = [0; MAX_REQUEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut request)];
        let len = match recvmsg(&socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => continue,
            // A runtime that was killed leaves it so.
            Err(Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if len == 0 {
            return Ok(());
        }
        let passed = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let text = String::from_utf8_lossy(request.get(..len).unwrap_or_default()).into_owned();
        let answer = answer(file_system, &text, passed).map_or_else(|error| error.to_string(), |()| "ok".to_owned());
        send(&socket, answer.as_bytes(), SendFlags::NOSIGNAL)?;
    }
}

/// Says that the device may connect.
///
/// # Errors
/// When the socket fails.
pub fn ready(socket: impl AsFd) -> io::Result<()> {
    send(&socket, b"ready", SendFlags::NOSIGNAL)?;
    Ok(())
}

fn answer(file_system: &FileSystem, text: &str, passed: Option<OwnedFd>) -> Result<(), Errno> {
    match (text.split(' ').collect::<Vec<_>>().as_slice(), passed) {
        (["add", name, access @ ("ro" | "rw")], Some(top)) => {
            if matches!(host::file_type(&host::stat(&top)?), FileType::Symlink | FileType::Unknown) {
                return Err(Errno::LOOP);
            }
            file_system.tree.add(name, *access == "ro", top)
        }
        (["remove", name], None) => file_system.remove(name),
        _ => Err(Errno::INVAL),
    }
}
