//! Making processes and giving them namespaces.

use std::{
    ffi::{CStr, CString},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;

use super::{check, check_long};

/// `CLONE_INTO_CGROUP` of `linux/sched.h`, which libc's type is too narrow for.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent { pid: Pid, pidfd: OwnedFd },
}

/// Forks with clone3(2): new namespaces as `namespaces` (CLONE_NEW*) says, the child in the given cgroup from birth.
pub fn fork_into(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero clone_args is a plain fork.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: without CLONE_VM the child gets a copy of this single-threaded process on the same stack, as with fork.
    let pid =
        check_long(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) })?;
    match i32::try_from(pid).ok().and_then(Pid::from_raw) {
        None => Ok(Fork::Child),
        // SAFETY: the kernel has just put a new descriptor there and nothing else owns it.
        Some(pid) => Ok(Fork::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Forks plainly; `None` in the child. Unlike [`fork_into`] it needs no clone3(2), which docker's default profile answers
/// with ENOSYS.
pub fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has a single thread, so the child may do anything its parent may.
    let pid = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(pid))
}

/// Moves this process into namespaces: of the process behind a pidfd, or of one namespace's own descriptor.
pub fn set_namespaces(fd: impl AsFd, namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: setns touches no memory of this process.
    check(unsafe { libc::setns(fd.as_fd().as_raw_fd(), namespaces) })?;
    Ok(())
}

/// Gives this process new namespaces.
pub fn unshare(namespaces: libc::c_int) -> io::Result<()> {
    // SAFETY: with namespace flags only, no memory of this process changes.
    check(unsafe { libc::unshare(namespaces) })?;
    Ok(())
}

/// Closes every descriptor from `first` on. Only for a child about to run a command: owners in this process are left
/// with dead numbers, and must be forgotten.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the child uses none of these descriptors again, and leaves by execve or _exit, which drop nothing.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) })?;
    Ok(())
}

/// Puts a copy of `fd` at the number `target`, open across execve or not.
pub fn place_descriptor(fd: impl AsFd, target: libc::c_int, close_on_exec: bool) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    if fd == target {
        let flags = if close_on_exec { libc::FD_CLOEXEC } else { 0 };
        // SAFETY: only the flag of a descriptor changes.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, flags) })?;
        return Ok(());
    }
    // SAFETY: the target number belongs to the child's own numbering scheme; what was there is not used again.
    check(unsafe { libc::dup3(fd, target, if close_on_exec { libc::O_CLOEXEC } else { 0 }) })?;
    Ok(())
}

/// A copy of `fd` with a number of at least `least`, close-on-exec.
pub fn copy_above(fd: impl AsFd, least: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: fcntl makes a new descriptor and touches no memory.
    let copy = check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, least) })?;
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Null-terminated argument and environment lists.
pub struct CStringArray {
    pointers: Vec<*const libc::c_char>,
    _strings: Vec<CString>,
}

impl CStringArray {
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        pointers.push(ptr::null());
        Self { pointers, _strings: strings }
    }
}

/// execve(2); returns only on error.
pub fn execute(path: &CStr, arguments: &CStringArray, environment: &CStringArray) -> io::Error {
    // SAFETY: both arrays end in null and their strings live as long as they do.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process at once, with nothing unwound or flushed.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit does not return.
    unsafe { libc::_exit(code) }
}

/// Makes the terminal the controlling one of this session.
pub fn set_controlling_terminal(terminal: impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    Ok(())
}
