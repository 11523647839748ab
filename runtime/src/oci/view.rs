//! What the container's process on the host sees of the filesystem: the container's root, with its bind mounts.
//!
//! Engines enter that process's mount namespace to copy into a running container (`podman cp`), and read its root through
//! procfs. They must find the container there, and not the host; its `/proc` is [`super::proc_view`]'s. createContainer
//! hooks run before its root is changed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::bundle::Share;

/// A mount namespace of the calling thread's own, in which the container's files lie where its bundle has its root.
#[derive(Debug)]
pub(super) struct View {
    root: OwnedFd,
}

/// Puts the calling thread into such a namespace. `shares`: the root first.
pub(super) fn show(shares: &[Share]) -> Result<View, Errno> {
    let (root, binds) = shares.split_first().ok_or(Errno::INVAL)?;
    // SAFETY: a mount namespace and the filesystem context it implies hold no memory or descriptors of other threads.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let root_tree = clone_tree(root)?;
    move_mount(&root_tree, "", CWD, &root.path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    for bind in binds {
        // A target that is not there, or is not what it was, is not shown.
        if let (Ok(tree), Ok(target)) = (clone_tree(bind), target(&root_tree, &bind.target)) {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            let _ = move_mount(&tree, "", &target, "", flags);
        }
    }
    Ok(View { root: root_tree })
}

impl View {
    /// A directory in the container's root.
    pub(super) fn directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let found = target(&self.root, path)?;
        let stat = rustix::fs::fstat(&found)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() { Ok(found) } else { Err(Errno::NOTDIR) }
    }

    /// Makes the container's root the namespace's.
    pub(super) fn pivot(&self) -> Result<(), Errno> {
        fchdir(&self.root)?;
        pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    }
}

/// A copy of the mount that is shared, attached nowhere.
pub(super) fn clone_tree(share: &Share) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if share.recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, &share.path, flags)?;
    if let Some(maps) = &share.id_maps {
        maps.apply(&tree).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    Ok(tree)
}

/// The image made the tree: its links lead nowhere but into it.
fn target(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = path.strip_prefix("/").unwrap_or(path);
    openat2(root.as_fd(), path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
}
