//! Copies that keep holes and are never seen half written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Writes `to` through a temporary file beside it, so that a running program or a killed build leaves no half of it.
pub fn replace(to: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let dir = to.parent().with_context(|| format!("{} has no directory", to.display()))?;
    fs::create_dir_all(dir).with_context(|| format!("Failed to create {}", dir.display()))?;
    let partial = partial_name(to);
    let result = File::create(&partial).and_then(|mut file| write(&mut file)).and_then(|()| fs::rename(&partial, to));
    if result.is_err() {
        // The error that matters is the one above; a leftover is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
    }
    result.with_context(|| format!("Failed to write {}", to.display()))
}

/// The temporary name that [`replace`] and external tools use for `to`.
pub fn partial_name(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    to.with_file_name(name)
}

/// Copies a file with its permissions; holes stay holes.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("Failed to open {}", from.display()))?;
    let meta = source.metadata().with_context(|| format!("Failed to look at {}", from.display()))?;
    replace(to, |target| {
        copy_data(&mut source, target, meta.len())?;
        target.set_permissions(meta.permissions())?;
        target.set_modified(meta.modified()?)
    })
}

/// Copies unless `to` already has the size and time of `from`. Answers whether it copied.
pub fn copy_if_changed(from: &Path, to: &Path) -> Result<bool> {
    let look = |path: &Path| -> io::Result<_> {
        let meta = fs::metadata(path)?;
        Ok((meta.len(), meta.modified()?))
    };
    let source = look(from).with_context(|| format!("Failed to look at {}", from.display()))?;
    if look(to).is_ok_and(|target| target == source) {
        return Ok(false);
    }
    copy(from, to)?;
    Ok(true)
}

fn copy_data(source: &mut File, target: &mut File, size: u64) -> io::Result<()> {
    target.set_len(size)?;
    let mut at = 0;
    while at < size {
        let start = match seek(&*source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system without holes: all of it is data.
            Err(Errno::INVAL) => return copy_range(source, target, 0, size),
            Err(error) => return Err(error.into()),
        };
        let end = seek(&*source, SeekFrom::Hole(start))?.min(size);
        copy_range(source, target, start, end)?;
        at = end;
    }
    target.flush()
}

fn copy_range(source: &mut File, target: &mut File, start: u64, end: u64) -> io::Result<()> {
    source.seek(io::SeekFrom::Start(start))?;
    target.seek(io::SeekFrom::Start(start))?;
    let copied = io::copy(&mut Read::take(&mut *source, end - start), target)?;
    if copied == end - start {
        Ok(())
    } else {
        Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter while it was copied"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn holes_data_and_permissions_survive() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("sub/to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);

        assert!(copy_if_changed(&from, &to).unwrap());
        assert!(!copy_if_changed(&from, &to).unwrap());
        let meta = fs::metadata(&to).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (64 << 20, 0o755));
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("file");
        fs::write(&to, "old").unwrap();
        replace(&to, |_| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!(fs::read_to_string(&to).unwrap(), "old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
