//! The socket to the runtime, which says what the guest shall see. A request is one packet, its words with a NUL between
//! them and a descriptor beside it where it needs one, and is answered by one packet: `ok`, or what went wrong.
//!
//! * `add`, NAME, `ro` or `rw`, with the directory or file: `O_PATH` will do, and so will a mount that is attached nowhere
//!   (`open_tree`), which keeps what is mounted below it.
//! * `seal`, NAME: the entry is read-only from now on, and nothing below it is open any more.
//! * `remove`, NAME: when that is answered, the server has nothing below the entry open any more.

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

/// Says that the server is there.
///
/// # Errors
/// When the socket fails.
pub fn greet(socket: impl AsFd) -> io::Result<()> {
    send(socket, b"ready", SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes one request, or waits for it. False when the runtime has hung up.
///
/// # Errors
/// When the socket fails.
pub fn serve_one(file_system: &FileSystem, socket: impl AsFd) -> io::Result<bool> {
    let mut request = [0; MAX_REQUEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut request)];
    let len = match recvmsg(&socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) => message.bytes,
        Err(Errno::INTR) => return Ok(true),
        // A runtime that was killed leaves it so.
        Err(Errno::CONNRESET) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if len == 0 {
        return Ok(false);
    }
    let passed = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let text = String::from_utf8_lossy(request.get(..len).unwrap_or_default()).into_owned();
    let answer = answer(file_system, &text, passed).unwrap_or_else(|error| error);
    match send(&socket, answer.as_bytes(), SendFlags::NOSIGNAL) {
        Ok(_) => Ok(true),
        Err(Errno::PIPE | Errno::CONNRESET) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn answer(file_system: &FileSystem, text: &str, passed: Option<OwnedFd>) -> Result<String, String> {
    let words: Vec<&str> = text.split('\0').collect();
    match (words.as_slice(), passed) {
        (["add", name, access @ ("ro" | "rw")], Some(top)) => {
            let kind = host::stat(&top).map(|stat| host::file_type(&stat));
            let kind = kind.map_err(|error| format!("what shall be {name} cannot be looked at: {error}"))?;
            if matches!(kind, FileType::Symlink | FileType::Unknown) {
                return Err(format!("what shall be {name} is neither a file nor a directory"));
            }
            let added = file_system.tree.add(name, *access == "ro", top);
            added.map_err(|error| format!("{name} cannot be added: {error}"))?;
        }
        (["seal", name], None) => {
            file_system.seal(name).map_err(|error| format!("{name} cannot be made read-only: {error}"))?;
        }
        (["remove", name], None) => {
            file_system.remove(name).map_err(|error| format!("{name} cannot be removed: {error}"))?;
        }
        _ => return Err("this is no request, or its descriptor is missing".to_owned()),
    }
    Ok("ok".to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::Limits;

    #[test]
    fn what_is_no_request_is_answered_with_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Some(OwnedFd::from(File::open(dir.path()).unwrap()));
        let file_system = FileSystem::new(Limits { nodes: 8, handles: 8 });
        let ask = |text: &str, passed| answer(&file_system, text, passed);
        assert_eq!(ask("add\0a\0ro", open()), Ok("ok".to_owned()));
        for text in
            ["add\0a\0rw", "add\0\0rw", "add\0..\0rw", "add\0a/b\0rw", "add\0b\0rx", "add b rw", "remove\0a", ""]
        {
            assert!(ask(text, open()).is_err(), "{text:?}");
        }
        assert!(ask("add\0b\0rw", None).is_err());
        assert!(ask("remove\0b", None).is_err());
        assert!(ask("seal\0b", None).is_err());
        assert_eq!(ask("seal\0a", None), Ok("ok".to_owned()));
        assert_eq!(ask("remove\0a", None), Ok("ok".to_owned()));
        assert_eq!(ask("add\0a\0rw", open()), Ok("ok".to_owned()));
    }
}
