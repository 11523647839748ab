//! `/dev` of a container: the nodes and links every container has (OCI runtime specification, "Default Devices"), and
//! those its specification adds.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mknodat, openat, statat,
        symlinkat,
    },
    io::Errno,
};

use super::{
    mounts,
    paths::{self, Missing},
};
use crate::{
    container::namespaces::Namespaces,
    error::{Doing, Failure, Result},
};

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
    /// A node of it outside of the container, to be mounted where none can be made.
    pub stash: Option<PathBuf>,
}

/// Where nodes are kept for containers that cannot make their own.
const STASH: &str = "/dev/.dewar";

/// Keeps a node of each device for a container in whose user namespace, or on whose root, none can be made. The nodes are
/// shared: what they are is their name.
pub fn stash(devices: &mut [Device], namespaces: &Namespaces) -> Result<()> {
    for device in devices.iter_mut().filter(|device| device.kind != FileType::Fifo) {
        let failed = || format!("Keeping the device {} failed", device.path.display());
        let Some((uid, gid)) = namespaces.outside(device.uid, device.gid) else { continue };
        let (kind, number) = (device.kind, makedev(device.major, device.minor));
        let name = format!("{kind:?}-{}-{}-{:o}-{uid}-{gid}", device.major, device.minor, device.mode);
        let directory = match std::fs::create_dir(STASH) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error).doing(failed)?,
            _ => openat(CWD, STASH, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).doing(failed)?,
        };
        match mknodat(&directory, &name, kind, Mode::from(device.mode), number) {
            Ok(()) => {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                chownat(&directory, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(failed)?;
                chmodat(&directory, &name, Mode::from(device.mode), AtFlags::empty()).doing(failed)?;
            }
            Err(Errno::EXIST) => {}
            other => other.doing(failed)?,
        }
        device.stash = Some(Path::new(STASH).join(name));
    }
    Ok(())
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
/// machine's own, or those that were kept for it ([`stash`]), over empty files instead.
pub fn populate(root: BorrowedFd<'_>, devices: &[Device], bind: bool) -> Result<()> {
    for (name, major, minor) in DEFAULT {
        let path = Path::new("/dev").join(name);
        if devices.iter().any(|device| device.path == path) {
            continue;
        }
        let kind = FileType::CharacterDevice;
        let device = Device { path, kind, major, minor, mode: 0o666, uid: 0, gid: 0, stash: None };
        make(root, &device, (bind, Found::Anything))?;
    }
    devices.iter().try_for_each(|device| make(root, device, (bind, Found::Same)))?;
    let directory = paths::ensure(root, Path::new("dev"), Missing::Directory).doing(|| "Opening /dev failed".into())?;
    for (target, name) in LINKS {
        match symlinkat(target, &directory, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).doing(|| format!("Making the link /dev/{name} failed")),
        }
    }
    Ok(())
}

/// What may be at a device's path already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The image brought something of that name, which is its own affair.
    Anything,
    Same,
}

fn make(root: BorrowedFd<'_>, device: &Device, (bind, found): (bool, Found)) -> Result<()> {
    let failed = || format!("Making the device {} failed", device.path.display());
    let (Some(name), Some(parent)) = (device.path.file_name(), device.path.parent()) else {
        return Err(Failure::invalid(format!("{} is no path of a device", device.path.display())));
    };
    if bind && device.kind != FileType::Fifo {
        return bind_guest_s(root, device);
    }
    let parent = paths::ensure(root, parent, Missing::Directory).doing(failed)?;
    let number = if device.kind == FileType::Fifo { 0 } else { makedev(device.major, device.minor) };
    match mknodat(&parent, name, device.kind, Mode::from(device.mode), number) {
        Err(Errno::EXIST) if found == Found::Anything => return Ok(()),
        Err(Errno::EXIST) => {
            let there = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).doing(failed)?;
            if (FileType::from_raw_mode(there.st_mode), there.st_rdev) == (device.kind, number) {
                return Ok(());
            }
            let path = device.path.display();
            return Err(Failure::invalid(format!("The device {path} cannot be made: there is something else")));
        }
        // A root filesystem that is the host's takes no nodes, least of all when it is read-only.
        Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) if device.kind != FileType::Fifo => {
            return bind_guest_s(root, device);
        }
        other => other.doing(failed)?,
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    if (device.uid, device.gid) != (0, 0) {
        chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).doing(failed)?;
        chmodat(&parent, name, Mode::from(device.mode), AtFlags::empty()).doing(failed)?;
    }
    Ok(())
}

/// Mounts the guest's own node of a device.
fn bind_guest_s(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let failed = || format!("Making the device {} failed", device.path.display());
    let kind = if device.kind == FileType::BlockDevice { "block" } else { "char" };
    // The kernel knows what it calls the device; a standard one lies where it always does.
    let known = std::fs::read_link(format!("/sys/dev/{kind}/{}:{}", device.major, device.minor));
    let name = known.ok().and_then(|link| device_name(&link));
    let source = match (&device.stash, name) {
        (Some(stash), _) => stash.clone(),
        (None, Some(name)) => Path::new("/dev").join(name),
        (None, None) => Path::new("/dev").join(device.path.strip_prefix("/dev").unwrap_or(&device.path)),
    };
    let source = openat(CWD, &source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).doing(failed)?;
    let there = fstat(&source).doing(failed)?;
    if (FileType::from_raw_mode(there.st_mode), there.st_rdev) != (device.kind, makedev(device.major, device.minor)) {
        let (path, major, minor) = (device.path.display(), device.major, device.minor);
        return Err(Failure::invalid(format!("The guest has no device {major}:{minor} for {path}")));
    }
    let target = paths::ensure(root, &device.path, Missing::File).doing(failed)?;
    mounts::bind(source.as_fd(), target.as_fd()).doing(failed)
}

/// The name below `/dev` of a link in `/sys/dev`, whose last part has `!` for each `/`.
fn device_name(link: &Path) -> Option<String> {
    link.file_name().map(|name| name.to_string_lossy().replace('!', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_name_of_a_device_is_a_path() {
        let name = |link: &str| device_name(Path::new(link));
        assert_eq!(name("../../devices/virtual/mem/null").as_deref(), Some("null"));
        assert_eq!(name("../../devices/virtual/misc/net!tun").as_deref(), Some("net/tun"));
    }
}
