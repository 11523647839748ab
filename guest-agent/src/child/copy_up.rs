//! `tmpcopyup`: a tmpfs that begins with what lay where it is mounted.
//!
//! What is copied belongs to the image: every name is looked at without following links, and only regular files are
//! opened.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fstat, mkdirat, mknodat, openat,
        readlinkat, statat, symlinkat,
    },
    io::Errno,
};

/// How deep directories may lie in each other.
const MAX_DEPTH: u32 = 256;

/// Copies the directory behind `from` to the empty one behind `to`, with owners and modes. Both may be O_PATH.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    let from = openat(from, ".", DIRECTORY, Mode::empty())?;
    let to = openat(to, ".", DIRECTORY, Mode::empty())?;
    directory(&from, &to, MAX_DEPTH)
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> std::io::Result<()> {
    let below = depth.checked_sub(1).ok_or(Errno::LOOP)?;
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                mkdirat(to, name, Mode::RWXU)?;
                let (from, to) =
                    (openat(from, name, DIRECTORY, Mode::empty())?, openat(to, name, DIRECTORY, Mode::empty())?);
                directory(&from, &to, below)?;
            }
            FileType::RegularFile => regular(from, to, name)?,
            FileType::Symlink => {
                symlinkat(&*readlinkat(from, name, Vec::new())?, to, name)?;
                own(to, name, &stat)?;
                continue;
            }
            other => mknodat(to, name, other, mode, stat.st_rdev)?,
        }
        own(to, name, &stat)?;
        // Behind the change of owner, which takes set-id bits away.
        chmodat(to, name, mode, AtFlags::empty())?;
    }
    Ok(())
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut source = File::from(openat(from, name, flags, Mode::empty())?);
    // It may have been exchanged since it was looked at.
    if FileType::from_raw_mode(fstat(&source)?.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN.into());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    std::io::copy(&mut source, &mut target).map(drop)
}

fn own(to: impl AsFd, name: &std::ffi::CStr, stat: &Stat) -> std::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{FileTypeExt, PermissionsExt, symlink},
    };

    use super::*;

    #[test]
    fn everything_is_copied_as_it_is() {
        let dir = tempfile::tempdir().expect("makes a directory");
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).expect("makes directories");
        fs::create_dir(&to).expect("makes a directory");
        fs::write(from.join("a/b/file"), "content").expect("writes");
        fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o640)).expect("changes the mode");
        fs::set_permissions(from.join("a"), fs::Permissions::from_mode(0o1777)).expect("changes the mode");
        symlink("/etc/passwd", from.join("link")).expect("links");
        mknodat(rustix::fs::CWD, from.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("makes a fifo");
        let open = |path| File::open(path).expect("opens");
        copy(open(&from).as_fd(), open(&to).as_fd()).expect("copies");
        assert_eq!(fs::read_to_string(to.join("a/b/file")).expect("reads"), "content");
        let mode = |path: &str| fs::symlink_metadata(to.join(path)).expect("is there").permissions().mode() & 0o7777;
        assert_eq!((mode("a/b/file"), mode("a")), (0o640, 0o1777));
        assert_eq!(fs::read_link(to.join("link")).expect("is a link").to_str(), Some("/etc/passwd"));
        assert!(fs::symlink_metadata(to.join("fifo")).expect("is there").file_type().is_fifo());
    }
}
