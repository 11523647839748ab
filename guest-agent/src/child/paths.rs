//! Paths of the container, resolved inside its root and nowhere else, whatever links the image holds.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat},
    io::Errno,
};

/// What to make where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    Directory,
    File,
}

/// Links followed by hand when a path dangles, as many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Opens a path of the container. Magic links, which lead out of the root, are refused.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename raced with the resolution of `..`.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a path as O_PATH, and makes it and its parents where they are missing.
pub fn ensure(root: BorrowedFd<'_>, path: &Path, missing: Missing) -> rustix::io::Result<OwnedFd> {
    ensure_within(root, path, missing, MAX_LINKS)
}

fn ensure_within(root: BorrowedFd<'_>, path: &Path, missing: Missing, links: u32) -> rustix::io::Result<OwnedFd> {
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let (Some(Component::Normal(name)), Some(parent)) = (path.components().next_back(), path.parent()) else {
        // Nothing can be made at `..`, and the root exists.
        return Err(Errno::NOENT);
    };
    let directory = ensure_within(root, parent, Missing::Directory, links)?;
    let made = match missing {
        Missing::Directory => mkdirat(&directory, name, Mode::from(0o755)),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            openat(&directory, name, flags, Mode::from(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) => return open(root, path, OFlags::PATH),
        Err(Errno::EXIST) if links > 0 => {}
        Err(e) => return Err(e),
    }
    // Something is there and yet it does not resolve: a link to nothing. Make what it points at.
    let target = readlinkat(&directory, name, Vec::new()).map_err(|_| Errno::NOENT)?;
    let target = PathBuf::from(std::ffi::OsString::from(target.to_string_lossy().into_owned()));
    ensure_within(root, &parent.join(target), missing, links.saturating_sub(1))
}

/// Whether an O_PATH descriptor is of a directory.
pub fn is_directory(fd: impl AsFd) -> rustix::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use rustix::fs::CWD;

    use super::*;

    fn root_of(directory: &Path) -> OwnedFd {
        openat(CWD, directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("opens")
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dewar-agent-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("root")).expect("makes a directory");
        path
    }

    #[test]
    fn missing_parents_and_files_are_made() {
        let base = scratch("made");
        let root = root_of(&base.join("root"));
        ensure(root.as_fd(), Path::new("/a/b/c"), Missing::File).expect("makes");
        assert!(base.join("root/a/b/c").is_file());
        ensure(root.as_fd(), Path::new("a/d"), Missing::Directory).expect("makes");
        assert!(base.join("root/a/d").is_dir());
        fs::remove_dir_all(base).expect("removes");
    }

    #[test]
    fn links_and_dots_never_leave_the_root() {
        let base = scratch("links");
        let root = root_of(&base.join("root"));
        symlink("../../../../outside/file", base.join("root/dangling")).expect("links");
        symlink("/", base.join("root/up")).expect("links");
        ensure(root.as_fd(), Path::new("/dangling"), Missing::File).expect("makes");
        assert!(base.join("root/outside/file").is_file());
        assert!(!base.join("outside").exists());
        ensure(root.as_fd(), Path::new("/up/../../x"), Missing::Directory).expect("makes");
        assert!(base.join("root/x").is_dir());
        fs::remove_dir_all(base).expect("removes");
    }

    #[test]
    fn what_lies_behind_a_link_to_nothing_is_made() {
        let base = scratch("behind");
        let root = root_of(&base.join("root"));
        symlink("/made/far", base.join("root/jump")).expect("links");
        symlink("/jump/hosts", base.join("root/hosts")).expect("links");
        ensure(root.as_fd(), Path::new("/hosts"), Missing::File).expect("makes");
        assert!(base.join("root/made/far/hosts").is_file());
        symlink("jump/folder", base.join("root/folder")).expect("links");
        ensure(root.as_fd(), Path::new("/folder"), Missing::Directory).expect("makes");
        assert!(base.join("root/made/far/folder").is_dir());
        fs::remove_dir_all(base).expect("removes");
    }

    #[test]
    fn a_circle_of_links_ends() {
        let base = scratch("circle");
        let root = root_of(&base.join("root"));
        symlink("b", base.join("root/a")).expect("links");
        symlink("a", base.join("root/b")).expect("links");
        assert_eq!(ensure(root.as_fd(), Path::new("/a"), Missing::File).expect_err("a circle"), Errno::LOOP);
        fs::remove_dir_all(base).expect("removes");
    }
}
