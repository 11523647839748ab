//! A look at the host's files, and installations that differ in a file.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::Host;

/// Everything below a folder, with its size; what vanishes meanwhile is left out.
pub fn files_below(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), if meta.is_file() { meta.len() } else { 0 });
        }
    }
    found
}

/// A host with an installation and a root of its own, busybox loaded; they go with the folders.
pub fn own_stage(host: &Host) -> Result<(Host, [tempfile::TempDir; 2])> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let root = tempfile::Builder::new().prefix("dw").tempdir()?;
    let archive = host.stage.join("lib/dewar/busybox.tar").display().to_string();
    let host = copy_stage(&host.with_root(root.path()), dir.path())?;
    host.dewar(&["load", "-q", "-i", &archive]).finish()?.success()?;
    Ok((host, [dir, root]))
}

/// An installation in `dir` with the same files as the host's, for a case to spoil.
///
/// # Errors
/// Those of writing files.
fn copy_stage(host: &Host, dir: &Path) -> Result<Host> {
    for part in ["bin", "lib/dewar"] {
        let (from, to) = (host.stage.join(part), dir.join(part));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            // The programs find the rest beside themselves, so they have to be here; of the rest a name is enough.
            if part == "bin" {
                link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
            } else {
                std::os::unix::fs::symlink(fs::canonicalize(entry.path())?, to.join(entry.file_name()))?;
            }
        }
    }
    Ok(host.with_stage(dir))
}

/// A further name for a file, or a copy where that cannot be.
///
/// # Errors
/// Those of copying.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// A small filesystem of the case's own, unmounted at the end.
#[derive(Debug)]
pub struct Mounted {
    dir: TempDir,
}

impl Mounted {
    /// Memory of a size such as `16m`; `None` for those who may not mount.
    ///
    /// # Errors
    /// When it cannot be mounted for another reason.
    pub fn tmpfs(size: &str) -> Result<Option<Self>> {
        let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
        let (kind, target) = (c"tmpfs", CString::new(dir.path().as_os_str().as_bytes())?);
        let options = CString::new(format!("size={size}"))?;
        // SAFETY: all four are strings that end with a zero byte and live through the call.
        let done = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
        let error = Error::last_os_error();
        match error.raw_os_error() {
            _ if done == 0 => Ok(Some(Self { dir })),
            Some(libc::EPERM) => Ok(None),
            _ => Err(error).context("cannot mount a tmpfs"),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Bytes that its files take.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn used(&self) -> Result<u64> {
        let path = CString::new(self.path().as_os_str().as_bytes())?;
        let mut figures = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: a string that ends with a zero byte, and a place of the right size.
        let done = unsafe { libc::statvfs(path.as_ptr(), figures.as_mut_ptr()) };
        ensure!(done == 0, "statvfs: {}", Error::last_os_error());
        // SAFETY: all zero bytes are valid, and the call has filled it.
        let figures = unsafe { figures.assume_init() };
        Ok((figures.f_blocks - figures.f_bfree) * figures.f_frsize)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Ok(target) = CString::new(self.path().as_os_str().as_bytes()) else { return };
        // SAFETY: a string that ends with a zero byte. What still uses it keeps it a little longer.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}
