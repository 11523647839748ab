//! The sandbox's PID namespace: that of containers without one of their own. The agent is not in it, so that no container
//! sees, signals or traces it. Its first process, a copy of the agent with nothing of the agent's, reaps orphans.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{MountFlags, mount},
    process::{WaitOptions, wait},
};

use super::rootfs::BASE;
use crate::{
    child,
    error::{Doing, Result},
    sys::{
        process::{self, Fork},
        signal,
    },
};

/// The namespace, once it exists.
#[derive(Debug, Default)]
pub struct Sandbox {
    pid: Option<Held>,
}

#[derive(Debug)]
struct Held {
    namespace: OwnedFd,
    /// Keeps the first process from being taken for another one.
    _first: OwnedFd,
}

impl Sandbox {
    /// The PID namespace, which is made when a container first needs it.
    pub fn pid_namespace(&mut self) -> Result<BorrowedFd<'_>> {
        let held = match self.pid.take() {
            Some(held) => held,
            None => make()?,
        };
        let held: &Held = self.pid.insert(held);
        Ok(held.namespace.as_fd())
    }
}

fn make() -> Result<Held> {
    let failed = || "Making the sandbox's PID namespace failed".to_owned();
    let namespaces = u64::try_from(libc::CLONE_NEWPID | libc::CLONE_NEWNS).unwrap_or_default();
    match process::fork_into(namespaces, None).doing(failed)? {
        Fork::Child => reap_for_ever(),
        Fork::Parent { pid, pidfd } => {
            let namespace = std::fs::File::open(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).doing(failed)?;
            Ok(Held { namespace: namespace.into(), _first: pidfd })
        }
    }
}

/// Without a root of its own, what the agent sees would be at `/proc/1/root`.
fn leave_root() -> rustix::io::Result<()> {
    mount("none", BASE, "tmpfs", MountFlags::RDONLY, c"size=0")?;
    let root = openat(CWD, BASE, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    child::pivot(root.as_fd())
}

fn reap_for_ever() -> ! {
    child::mark();
    // Where one of these fails, this process ends, and with it every use of the namespace: with an error there.
    if signal::block_all().is_err() || leave_root().is_err() || process::close_from(0).is_err() {
        process::exit_now(125);
    }
    loop {
        let _ = signal::wait_any();
        while matches!(wait(WaitOptions::NOHANG), Ok(Some(_)) | Err(Errno::INTR)) {}
    }
}
