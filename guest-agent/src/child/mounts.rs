//! The mounts of a container, made by descriptor: no path is resolved twice and none outside the root.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use dewar_protocol::ErrorKind;
use rustix::{
    fs::{CWD, Mode, OFlags, fstat, openat},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{
    copy_up,
    paths::{self, Missing},
};
use crate::{
    container::{
        mounts::{self as wanted, Change, Mount, Source},
        rootfs::Root,
        spawn,
    },
    error::{Doing, Failure, Result},
    sys::mount::{Attributes, set_attributes},
};

const READ_ONLY: wanted::Attributes = wanted::Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0 };

/// A tmpfs that is to be read-only once everything that lies in it has been made.
pub struct Unsealed {
    tree: OwnedFd,
    change: Change,
}

impl Unsealed {
    pub fn seal(&self) -> std::io::Result<()> {
        change(&self.tree, self.change)
    }
}

/// Makes one mount of the specification. `given`: the detached mount, where the agent has it.
pub fn make(root: &Root, mount: &Mount, given: Option<BorrowedFd<'_>>) -> Result<Option<Unsealed>> {
    let failed = || format!("Mounting {} failed", mount.target.display());
    match &mount.source {
        Source::Filesystem { .. } if given.is_some() => make_bound(root, mount, given).map(|()| None),
        Source::Filesystem { kind, name, options, copy_up } => {
            let mut options = options.clone();
            if *kind == "tmpfs" && options.iter().all(|(key, _)| key != "mode") {
                options.extend(mode_of(root, &mount.target).doing(failed)?);
            }
            let target = paths::ensure(root.fd(), &mount.target, Missing::Directory).doing(failed)?;
            if matches!(*kind, "proc" | "sysfs") {
                ordinary(root, &mount.target)?;
            }
            let (tree, whole) = filesystem_or_guest_s(kind, name, &options, failed)?;
            if *copy_up {
                copy_up::copy(target.as_fd(), tree.as_fd())
                    .doing(|| format!("Copying what lies at {} to its tmpfs failed", mount.target.display()))?;
            }
            attach(&tree, target.as_fd()).doing(failed)?;
            let change = mount.change;
            let change = if whole { Change { tree: change.top, ..change } } else { change };
            // Mount points and devices, as those of /dev, are made in it yet.
            if *kind == "tmpfs" && (change.top.set | change.tree.set) & libc::MOUNT_ATTR_RDONLY != 0 {
                return Ok(Some(Unsealed { tree, change }));
            }
            self::change(&tree, change).doing(failed).map(|()| None)
        }
        Source::File { number } => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            let tree = open_tree(CWD, root.file(*number), flags).doing(failed)?;
            bound(root, mount, tree.as_fd()).doing(failed).map(|()| None)
        }
        Source::Root { path, recursive } => {
            let source = paths::open(root.fd(), path, OFlags::PATH).doing_as(ErrorKind::Invalid, || {
                format!("Opening {} of the container, the source of {}, failed", path.display(), mount.target.display())
            })?;
            let tree = copy(source.as_fd(), *recursive).doing(failed)?;
            bound(root, mount, tree.as_fd()).doing(failed).map(|()| None)
        }
        Source::Shared { .. } | Source::Memory { .. } | Source::Notify => make_bound(root, mount, given).map(|()| None),
    }
}

/// The mode of the folder that a tmpfs covers, as its option. Where it covers none it has the kernel's own.
fn mode_of(root: &Root, target: &Path) -> rustix::io::Result<Option<(String, Option<String>)>> {
    match paths::open(root.fd(), target, OFlags::PATH) {
        Err(Errno::NOENT) => Ok(None),
        found => Ok(Some(("mode".into(), Some(format!("{:o}", fstat(found?)?.st_mode & 0o7777))))),
    }
}

fn make_bound(root: &Root, mount: &Mount, tree: Option<BorrowedFd<'_>>) -> Result<()> {
    let failed = || format!("Mounting {} failed", mount.target.display());
    bound(root, mount, tree.ok_or_else(|| Failure::invalid(failed()))?).doing(failed)
}

/// The calling process's group, as a mount that is attached nowhere.
pub fn own_cgroup() -> Result<OwnedFd> {
    let group = spawn::cgroup_of("self")?;
    copy(group.as_fd(), true).doing(|| "Copying the mount of the container's cgroup failed".into())
}

fn bound(root: &Root, mount: &Mount, tree: BorrowedFd<'_>) -> std::io::Result<()> {
    let missing = if paths::is_directory(tree)? { Missing::Directory } else { Missing::File };
    let target = paths::ensure(root.fd(), &mount.target, missing)?;
    attach(tree, target.as_fd())?;
    change(tree, mount.change)
}

/// A link to elsewhere would leave the container without the filesystem where programs look for it.
fn ordinary(root: &Root, target: &Path) -> Result<()> {
    match paths::open(root.fd(), target, OFlags::PATH | OFlags::NOFOLLOW).and_then(paths::is_directory) {
        Ok(true) => Ok(()),
        _ => Err(Failure::invalid(format!("{} must be mounted on ordinary directory", target.display()))),
    }
}

/// A new instance, or where a user namespace may not have one, the guest's own; whether it is that.
fn filesystem_or_guest_s(
    kind: &str,
    name: &str,
    options: &[(String, Option<String>)],
    failed: impl Fn() -> String,
) -> Result<(OwnedFd, bool)> {
    let guest_s = match kind {
        "sysfs" => Some("/sys"),
        "cgroup2" => Some("/sys/fs/cgroup"),
        _ => None,
    };
    match (filesystem(kind, name, options), guest_s) {
        (Err(Refusal { errno: Errno::PERM, .. }), Some(path)) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let own = openat(CWD, path, flags, Mode::empty()).doing(&failed)?;
            Ok((copy(own.as_fd(), true).doing(failed)?, true))
        }
        (Err(refusal), _) => {
            let kind = if refusal.errno == Errno::INVAL { ErrorKind::Invalid } else { ErrorKind::Internal };
            Err(refusal).doing_as(kind, failed)
        }
        (Ok(tree), _) => Ok((tree, false)),
    }
}

/// Why the kernel makes no filesystem, in its own words where it has any.
#[derive(Debug, thiserror::Error)]
#[error("{}{errno}", words.as_ref().map(|words| format!("{words}: ")).unwrap_or_default())]
struct Refusal {
    errno: Errno,
    words: Option<String>,
}

fn filesystem(kind: &str, name: &str, options: &[(String, Option<String>)]) -> std::result::Result<OwnedFd, Refusal> {
    let plain = |errno| Refusal { errno, words: None };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(plain)?;
    let explained = |errno| Refusal { errno, words: words_of(&context) };
    fsconfig_set_string(&context, "source", name).map_err(explained)?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        }
        .map_err(explained)?;
    }
    fsconfig_create(&context).map_err(explained)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(plain)
}

/// The first message of a filesystem context: a letter for its weight, a space, and the text.
fn words_of(context: &OwnedFd) -> Option<String> {
    let mut message = [0_u8; 256];
    let length = rustix::io::read(context, &mut message).ok()?;
    let text = message.get(2..length)?;
    Some(String::from_utf8_lossy(text).trim_end().to_owned())
}

fn attach(tree: impl AsFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    move_mount(tree, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
}

fn change(tree: impl AsFd, change: Change) -> std::io::Result<()> {
    let attributes = |attributes: wanted::Attributes| Attributes {
        set: attributes.set,
        clear: attributes.clear,
        ..Attributes::default()
    };
    let propagation = Attributes { propagation: change.propagation, ..Attributes::default() };
    let steps =
        [(attributes(change.tree), true), (attributes(change.top), false), (propagation, change.propagation_recursive)];
    steps
        .iter()
        .filter(|(step, _)| (step.set, step.clear, step.propagation) != (0, 0, 0))
        .try_for_each(|(step, recursive)| set_attributes(tree.as_fd(), *recursive, step))
}

/// Changes the root mount itself. Its propagation has to wait: what is shared cannot be pivoted to.
pub fn change_root(root: BorrowedFd<'_>, root_change: Change) -> Result<()> {
    let attributes = Change { propagation: 0, ..root_change };
    change(root, attributes).doing(|| "Changing the root mount failed".into())
}

/// Sets the propagation of the root, when it is this process's.
pub fn propagate_root(root_change: Change) -> Result<()> {
    if root_change.propagation == 0 {
        return Ok(());
    }
    let failed = || "Changing the root mount's propagation failed".to_owned();
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(failed)?;
    let Change { propagation, propagation_recursive, .. } = root_change;
    change(root, Change { propagation, propagation_recursive, ..Change::default() }).doing(failed)
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
    change(&tree, Change { tree: READ_ONLY, ..Change::default() }).doing(failed)?;
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
        change(&tree, Change { top: READ_ONLY, ..Change::default() }).doing(failed)?;
        attach(&tree, target.as_fd()).doing(failed)?;
        empty = Some(tree);
    }
    Ok(())
}
