//! Memory as files that containers of a sandbox share: a tmpfs for each name, as long as a container has it.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    rc::{Rc, Weak},
};

use dewar_protocol::{ErrorKind, MEMORY_DIR};
use rustix::{
    fs::CWD,
    mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount, open_tree, unmount},
};

use crate::error::{Doing, Failure, Result};

/// What containers have of it, by name.
#[derive(Debug, Default)]
pub struct Memory {
    known: BTreeMap<String, Weak<Held>>,
}

/// A tmpfs of the agent's, unmounted with the last container that has it.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Without the mount the folder is empty and in nobody's way; with it the memory stays until the machine ends.
        let _ = unmount(&self.path, UnmountFlags::DETACH).map(|()| fs::remove_dir(&self.path));
    }
}

impl Memory {
    /// A detached copy of the mount of this name, which the first one makes with its options.
    ///
    /// # Errors
    /// `Invalid` for options that tmpfs does not know.
    pub fn tree(&mut self, name: &str, options: &str) -> Result<(OwnedFd, Rc<Held>)> {
        let held = match self.known.get(name).and_then(Weak::upgrade) {
            Some(held) => held,
            None => Rc::new(mounted(name, options)?),
        };
        self.known.retain(|_, other| other.strong_count() > 0);
        self.known.insert(name.to_owned(), Rc::downgrade(&held));
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &held.path, flags).doing(|| format!("Taking the shared memory {name} failed"))?;
        Ok((tree, held))
    }
}

fn mounted(name: &str, options: &str) -> Result<Held> {
    let failed = || format!("Making the shared memory {name} failed");
    let path = Path::new(MEMORY_DIR).join(name);
    fs::create_dir_all(&path).doing(failed)?;
    let options = CString::new(options).doing_as(ErrorKind::Invalid, failed)?;
    // As engines make it.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("shm", &path, "tmpfs", flags, Some(options.as_c_str())).doing_as(ErrorKind::Invalid, failed)?;
    Ok(Held { path })
}

/// The name in a path right below [`MEMORY_DIR`]; none for another path.
///
/// # Errors
/// `Invalid` for one that lies deeper or is no plain name.
pub fn name(path: &Path) -> Result<Option<String>> {
    let Ok(below) = path.strip_prefix(MEMORY_DIR) else { return Ok(None) };
    let mut parts = below.components();
    match (parts.next(), parts.next(), below.to_str()) {
        (Some(Component::Normal(_)), None, Some(name)) if !name.contains('\0') => Ok(Some(name.to_owned())),
        _ => Err(Failure::invalid(format!("{} names no shared memory", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_lies_right_below_the_folder() {
        let named = |path: &str| name(Path::new(path)).map_err(|failure| failure.kind);
        assert_eq!(named("/run/dewar/memory/a1"), Ok(Some("a1".into())));
        for other in ["shm", "/run/dewar/memoryx/a", "/dev/shm"] {
            assert_eq!(named(other), Ok(None), "{other:?}");
        }
        for wrong in ["", "/", "/a/b", "/..", "/../x", "/a\0b"] {
            assert_eq!(named(&format!("/run/dewar/memory{wrong}")), Err(ErrorKind::Invalid), "{wrong:?}");
        }
    }
}
