//! A socket in the container on which its workload says that it is ready (sd_notify(3)).
//!
//! What comes over it is the workload's: of all that it may say only `READY=1` counts, and descriptors that it sends along
//! are closed unseen. The folder that the container sees is a filesystem of its own, which ends with the container.

use std::{
    fs::{self, Permissions},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::PermissionsExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
};

use dewar_protocol::NOTIFY_DIR;
use rustix::{
    fs::CWD,
    mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, open_tree, unmount},
};

use crate::error::{Doing, Result};

/// The socket's name in its folder.
const SOCKET: &str = "notify.sock";
/// Most of a message that is looked at; sd_notify(3) keeps to less.
const MESSAGE: usize = 4096;
/// Messages read at a time, so that a flood of them holds nobody else up.
const BATCH: usize = 32;

/// The socket of one container, and what has come over it.
#[derive(Debug)]
pub struct Notify {
    folder: Folder,
    socket: UnixDatagram,
    ready: bool,
    /// Calls that wait for the container to be ready.
    pub waiters: Vec<u64>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Without the mount the folder is empty and in nobody's way.
        let _ = unmount(&self.path, UnmountFlags::DETACH).map(|()| fs::remove_dir(&self.path));
    }
}

impl Notify {
    /// `number`: names the folder, and is no other container's.
    pub fn make(number: u64) -> Result<Self> {
        let failed = || "Making the container's notify socket failed".to_owned();
        let path = Path::new(NOTIFY_DIR).join(number.to_string());
        fs::create_dir_all(&path).doing(failed)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("notify", &path, "tmpfs", flags, Some(c"size=4k,nr_inodes=4,mode=0755")).doing(failed)?;
        let folder = Folder { path };
        let place = folder.path.join(SOCKET);
        let socket = UnixDatagram::bind(&place).doing(failed)?;
        socket.set_nonblocking(true).doing(failed)?;
        // Whoever the workload runs as.
        fs::set_permissions(&place, Permissions::from_mode(0o777)).doing(failed)?;
        Ok(Self { folder, socket, ready: false, waiters: Vec::new() })
    }

    /// The folder as a mount that is attached nowhere.
    pub fn tree(&self) -> Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, &self.folder.path, flags).doing(|| "Taking the container's notify socket failed".into())
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// Reads what has come; whether there may be more.
    pub fn read(&mut self) -> bool {
        let mut message = [0; MESSAGE];
        for _ in 0..BATCH {
            match self.socket.recv(&mut message) {
                Ok(length) => self.ready |= says_ready(message.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

fn says_ready(message: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_its_own_says_ready() {
        for message in ["READY=1", "READY=1\n", "STATUS=up\nREADY=1\nMAINPID=7"] {
            assert!(says_ready(message.as_bytes()), "{message:?}");
        }
        for message in ["", "READY=0", "READY=10", "STATUS=READY=1", "RELOADING=1\n"] {
            assert!(!says_ready(message.as_bytes()), "{message:?}");
        }
    }
}
