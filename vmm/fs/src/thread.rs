//! What a thread that serves requests has of its own: working directory, file mode mask, and the user it creates files as.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, capabilities, set_capabilities};

/// The numbers of an id that is not given.
const NOBODY: u32 = u32::MAX;

/// Proof that the calling thread has been set up. Stays in it.
#[derive(Debug)]
pub struct Thread {
    capabilities: CapabilitySets,
    /// Whether files can be created as somebody else; without the right to that they are ours.
    switches: bool,
    stays: PhantomData<*const ()>,
}

impl Thread {
    /// Sets the calling thread up. `descriptors` is `/proc/self/fd`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(descriptors: BorrowedFd<'_>) -> Result<Self, Errno> {
        // SAFETY: shared memory and descriptors stay shared; the working directory and the mask become the thread's own.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        rustix::process::fchdir(descriptors)?;
        umask(Mode::empty());
        let capabilities = capabilities(None)?;
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID;
        let switches = capabilities.effective.contains(needed);
        Ok(Self { capabilities, switches, stays: PhantomData })
    }

    /// Runs `create` so that what it makes belongs to `uid` and `gid` and its mode is cut by `mask`.
    ///
    /// Capabilities stay as they are, since the jail has told the kernel so: whether the guest's process may write to the
    /// directory was decided in the guest.
    ///
    /// # Errors
    /// `EPERM` when there is no such user here, and whatever `create` answers.
    pub fn create_as<T>(
        &self,
        (uid, gid): (u32, u32),
        mask: u32,
        create: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        umask(Mode::from_raw_mode(mask & 0o777));
        let result = if self.switches { Self::switched(uid, gid, create) } else { create() };
        umask(Mode::empty());
        result
    }

    fn switched<T>(uid: u32, gid: u32, create: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if uid == 0 && gid == 0 {
            return create();
        }
        let result = if set_group(gid) && set_user(uid) { create() } else { Err(Errno::PERM) };
        // Back to root works: its number was this thread's a moment ago.
        set_user(0);
        set_group(0);
        result
    }

    /// Runs `change` without the right to keep set-user-ID and set-group-ID bits: the kernel then takes them away as it does
    /// for the guest's process.
    ///
    /// # Errors
    /// Whatever `change` answers.
    pub fn without_set_id<T>(&self, change: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        if !self.capabilities.effective.contains(CapabilitySet::FSETID) {
            return change();
        }
        let mut fewer = self.capabilities;
        fewer.effective.remove(CapabilitySet::FSETID);
        set_capabilities(None, fewer)?;
        let result = change();
        // It stayed among the permitted ones.
        set_capabilities(None, self.capabilities)?;
        result
    }
}

/// Whether files of this thread belong to `uid` now.
fn set_user(uid: u32) -> bool {
    // SAFETY: changes a number of this thread; the second call changes nothing and says what it is.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsuid, uid);
        libc::syscall(libc::SYS_setfsuid, NOBODY)
    };
    now == i64::from(uid)
}

fn set_group(gid: u32) -> bool {
    // SAFETY: as above.
    let now = unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsgid, NOBODY)
    };
    now == i64::from(gid)
}
