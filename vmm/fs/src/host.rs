//! What is asked of the host's kernel about files that descriptors stand for. No path is walked here: a name is one
//! component below a descriptor, and a file is opened anew through its own descriptor's link in `/proc/self/fd`, which is
//! the working directory of every thread that serves requests.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, openat, statx};
use rustix::io::Errno;
use rustix::path::DecInt;

/// The file called `name` in `dir`, whatever it is; a symbolic link is itself.
///
/// # Errors
/// As `openat(2)`.
pub fn lookup(dir: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// # Errors
/// As `statx(2)`.
pub fn stat(file: impl AsFd) -> Result<Statx, Errno> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::from_bits_retain(libc::STATX_MNT_ID))
}

#[must_use]
pub fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The name of a descriptor's link, for what takes a path only. It leads to the very file and no further.
#[must_use]
pub fn link_name(file: impl AsFd) -> DecInt {
    DecInt::from_fd(file)
}

/// Opens what `file` stands for with other flags. For regular files and directories: opening something else would have
/// effects on the host.
///
/// # Errors
/// As `openat(2)`.
pub fn reopen(file: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, link_name(file), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}
