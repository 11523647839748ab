//! What the host shares: one virtio-fs whose root holds an entry for each directory or file of the host that a container
//! was given. It is mounted when a container first needs it.
//!
//! Paths come from the host and the trees below them belong to workloads, which may change them at any moment: they are
//! resolved beneath the mount, and no symbolic link in them is followed.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use dewar_protocol::{ErrorKind, SHARED_DIR, SHARED_TAG};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
    mount::{MountFlags, OpenTreeFlags, mount, open_tree},
};

use crate::error::{Doing, Failure, Result};

/// The shared filesystem of a sandbox, mounted or not yet.
#[derive(Debug, Default)]
pub struct Shared {
    root: Option<OwnedFd>,
}

impl Shared {
    /// A detached copy of the mount at an absolute path beneath [`SHARED_DIR`], and with `recursive` of those below it.
    ///
    /// # Errors
    /// `Invalid` for another path or one that does not exist; `Unsupported` in a sandbox whose host shares nothing.
    pub fn tree(&mut self, path: &Path, recursive: bool) -> Result<OwnedFd> {
        let relative = beneath(path)?;
        let target = resolve(self.root()?, &relative)
            .doing_as(ErrorKind::Invalid, || format!("Opening {} of what the host shares failed", path.display()))?;
        let recursive = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        open_tree(&target, "", flags | recursive)
            .doing(|| format!("Taking {} of the shared mount failed", path.display()))
    }

    fn root(&mut self) -> Result<BorrowedFd<'_>> {
        let root = match self.root.take() {
            Some(root) => root,
            None => mounted()?,
        };
        let root: &OwnedFd = self.root.insert(root);
        Ok(root.as_fd())
    }
}

fn mounted() -> Result<OwnedFd> {
    let failed = || format!("Mounting what the host shares at {SHARED_DIR} failed");
    fs::create_dir_all(SHARED_DIR).doing(failed)?;
    match mount(SHARED_TAG, SHARED_DIR, "virtiofs", MountFlags::empty(), None::<&std::ffi::CStr>) {
        // There is no device with that tag.
        Err(Errno::INVAL | Errno::NODEV) => {
            return Err(Failure::unsupported("This sandbox has no device for directories that the host shares"));
        }
        other => other.doing(failed)?,
    }
    openat(CWD, SHARED_DIR, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(failed)
}

/// The part of a path below [`SHARED_DIR`]. The directory itself belongs to all containers, and is none's.
pub fn beneath(path: &Path) -> Result<PathBuf> {
    let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    match path.strip_prefix(SHARED_DIR) {
        Ok(below) if !below.as_os_str().is_empty() && plain(below) && !has_null(below) => Ok(below.to_owned()),
        _ => Err(Failure::invalid(format!("{} is nothing that the host shares", path.display()))),
    }
}

fn has_null(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().contains(&0)
}

fn resolve(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
            // A rename raced with the resolution.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_lies_below_the_shared_directory_is_taken() {
        let below = |path: &str| beneath(Path::new(path)).map_err(|failure| failure.kind);
        assert_eq!(below("/run/dewar/shared/a/b"), Ok(PathBuf::from("a/b")));
        for wrong in [
            "/run/dewar/shared",
            "/run/dewar/shared/",
            "/run/dewar/shared/../x",
            "/run/dewar/shared/a/../../x",
            "/run/dewar/sharedx/a",
            "run/dewar/shared/a",
            "/etc",
            "/run/dewar/shared/a\0b",
        ] {
            assert_eq!(below(wrong), Err(ErrorKind::Invalid), "{wrong:?}");
        }
    }

    #[test]
    fn links_are_not_followed_wherever_they_lead() {
        let dir = tempfile::tempdir().expect("makes a directory");
        fs::create_dir_all(dir.path().join("entry/inner")).expect("makes directories");
        symlink("entry", dir.path().join("link")).expect("links");
        symlink("/", dir.path().join("entry/out")).expect("links");
        let root = fs::File::open(dir.path()).expect("opens");
        let open = |path: &str| resolve(root.as_fd(), Path::new(path)).map(drop);
        assert_eq!(open("entry/inner"), Ok(()));
        assert_eq!(open("link"), Err(Errno::LOOP));
        assert_eq!(open("link/inner"), Err(Errno::LOOP));
        assert_eq!(open("entry/out/etc"), Err(Errno::LOOP));
        assert_eq!(open("entry/none"), Err(Errno::NOENT));
    }
}
