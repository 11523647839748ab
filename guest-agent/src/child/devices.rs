//! `/dev` of a container: the nodes and links every container has (OCI runtime specification, "Default Devices"), and
//! those its specification adds.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, makedev, mknodat, openat, symlinkat},
    io::Errno,
};

use super::{
    mounts,
    paths::{self, Missing},
};
use crate::error::{Doing, Failure, Result};

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub path: PathBuf,
    pub kind: FileType,
    pub major: u32,
    pub minor: u32,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the default nodes, `devices`, and the links. In a user namespace nodes cannot be made: `bind` mounts the
/// machine's own over empty files instead.
pub fn populate(root: BorrowedFd<'_>, devices: &[Device], bind: bool) -> Result<()> {
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if devices.iter().any(|device| device.path == path) {
            continue;
        }
        let kind = FileType::CharacterDevice;
        let device = Device { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0 };
        make(root, &device, bind)?;
    }
    devices.iter().try_for_each(|device| make(root, device, bind))?;
    let directory = paths::ensure(root, Path::new("dev"), Missing::Directory).doing(|| "Opening /dev failed".into())?;
    for (target, name) in LINKS {
        match symlinkat(target, &directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).doing(|| format!("Making the link /dev/{name} failed")),
        }
    }
    Ok(())
}

fn make(root: BorrowedFd<'_>, device: &Device, bind: bool) -> Result<()> {
    let failed = || format!("Making the device {} failed", device.path.display());
    if bind {
        let source = Path::new("/dev").join(device.path.strip_prefix("/dev").unwrap_or(&device.path));
        let source = openat(CWD, &source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(failed)?;
        let target = paths::ensure(root, &device.path, Missing::File).doing(failed)?;
        return mounts::bind(source.as_fd(), target.as_fd()).doing(failed);
    }
    let (Some(name), Some(parent)) = (device.path.file_name(), device.path.parent()) else {
        return Err(Failure::invalid(format!("{} is no path of a device", device.path.display())));
    };
    let parent = paths::ensure(root, parent, Missing::Directory).doing(failed)?;
    let number = makedev(device.major, device.minor);
    match mknodat(&parent, name, device.kind, Mode::from(device.mode), number) {
        // The image brought something of that name, which is its own affair.
        Err(Errno::EXIST) => return Ok(()),
        other => other.doing(failed)?,
    }
    if (device.uid, device.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(failed)?;
        chmodat(&parent, name, Mode::from(device.mode), AtFlags::empty()).doing(failed)?;
    }
    Ok(())
}
