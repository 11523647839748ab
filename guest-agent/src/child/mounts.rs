//! The mounts of a container, made by descriptor: no path is resolved twice and none outside the root.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::paths::{self, Missing};
use crate::{
    container::{
        mounts::{Change, Mount, Source},
        rootfs::Root,
    },
    error::{Doing, Result},
    sys::mount::{Attributes, set_attributes},
};

/// Makes one mount of the specification.
pub fn make(root: &Root, mount: &Mount) -> Result<()> {
    let failed = || format!("Mounting {} failed", mount.target.display());
    let (tree, missing) = match &mount.source {
        Source::Filesystem { kind, name, options } => {
            (filesystem(kind, name, options).doing(failed)?, Missing::Directory)
        }
        Source::File { number } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            (open_tree(CWD, root.file(*number), flags).doing(failed)?, Missing::File)
        }
    };
    let target = paths::ensure(root.fd(), &mount.target, missing).doing(failed)?;
    attach(&tree, target.as_fd()).doing(failed)?;
    change(&tree, mount.change).doing(failed)
}

fn filesystem(kind: &str, name: &str, options: &[(String, Option<String>)]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", name)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attach(tree: impl AsFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_mount(tree, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

fn change(tree: impl AsFd, change: Change) -> std::io::Result<()> {
    if change.set == 0 && change.clear == 0 && change.propagation == 0 {
        return Ok(());
    }
    let attributes = Attributes { set: change.set, clear: change.clear, propagation: change.propagation, userns_fd: 0 };
    set_attributes(tree, change.recursive, &attributes)
}

/// Changes the root mount itself.
pub fn change_root(root: BorrowedFd<'_>, root_change: Change) -> Result<()> {
    change(root, root_change).doing(|| "Changing the root mount failed".into())
}

fn copy(source: BorrowedFd<'_>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(source, "", flags | recursive)
}

/// Mounts the file or directory behind one descriptor over that behind another.
pub fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    attach(copy(source, false)?, target)
}

/// Mounts a tree over itself, which makes it a mount of this namespace's own; the new root of it.
pub fn bind_over_itself(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let tree = copy(root, true)?;
    attach(&tree, root)?;
    Ok(tree)
}

/// Makes a path and what is below it read-only. A path that does not exist needs nothing.
pub fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let failed = || format!("Making {} read-only failed", path.display());
    let target = match paths::open(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        other => other.doing(failed)?,
    };
    let tree = copy(target.as_fd(), true).doing(failed)?;
    let read_only = Change { set: libc::MOUNT_ATTR_RDONLY, recursive: true, ..Change::default() };
    change(&tree, read_only).doing(failed)?;
    attach(&tree, target.as_fd()).doing(failed)
}

/// Hides paths: files behind `/dev/null`, directories behind an empty read-only tmpfs that they share.
pub fn mask(root: BorrowedFd<'_>, masked: &[std::path::PathBuf]) -> Result<()> {
    let mut empty: Option<OwnedFd> = None;
    for path in masked {
        let failed = || format!("Masking {} failed", path.display());
        let target = match paths::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.doing(failed)?,
        };
        if !paths::is_directory(&target).doing(failed)? {
            let null = openat(CWD, "/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(failed)?;
            bind(null.as_fd(), target.as_fd()).doing(failed)?;
            continue;
        }
        if let Some(first) = &empty {
            bind(first.as_fd(), target.as_fd()).doing(failed)?;
            continue;
        }
        let tree =
            filesystem("tmpfs", "tmpfs", &[("size".into(), Some("0".into())), ("mode".into(), Some("0555".into()))])
                .doing(failed)?;
        change(&tree, Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() }).doing(failed)?;
        attach(&tree, target.as_fd()).doing(failed)?;
        empty = Some(tree);
    }
    Ok(())
}
