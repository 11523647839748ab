//! Changing the attributes of a mount by file descriptor.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::check_long;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

/// mount_setattr(2) on the mount that `mount` refers to, and with `recursive` on those below it.
pub fn set_attributes(mount: impl AsFd, recursive: bool, attributes: &Attributes) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a literal, and the attributes are a struct mount_attr of the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<Attributes>(),
        )
    };
    check_long(result)?;
    Ok(())
}
