//! The writable disk of a container: a sparse copy of an empty ext4 filesystem.
//!
//! The usual size comes with the installation. Any other size is made once with `mke2fs` and kept, so that starting a
//! container never formats anything.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Paths, ResultExt};

/// Bytes of the installed template.
pub const DEFAULT_SIZE: u64 = 10 << 30;
const SMALLEST: u64 = 16 << 20;

/// Makes a container's writable disk.
pub(crate) fn make(paths: &Paths, target: &Path, size: u64) -> Result<(), Error> {
    let template = if size == DEFAULT_SIZE { paths.lib_file("scratch.ext4")? } else { template_of(paths, size)? };
    copy_sparse(&template, target).map_err(|e| {
        let _ = fs::remove_file(target);
        Error::with(ErrorKind::Internal, format!("Cannot make the writable layer {}", target.display()), e)
    })
}

fn template_of(paths: &Paths, size: u64) -> Result<PathBuf, Error> {
    if size < SMALLEST {
        let text = format!("A writable layer of {size} bytes is too small: give at least 16m");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let dir = paths.data.join("templates");
    crate::paths::make_private_dir(&dir)?;
    let path = dir.join(format!("scratch-{size}.ext4"));
    if path.exists() {
        return Ok(path);
    }
    let fresh = dir.join(format!("scratch-{size}.{}", std::process::id()));
    let output = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0"])
        .args(["-E", "lazy_itable_init=1,root_owner=0:0,nodiscard", "-F"])
        .arg(&fresh)
        .arg(format!("{}k", size / 1024))
        .output()
        .context(|| "Cannot run mke2fs (Debian's package e2fsprogs), which another size than 10g needs".into())?;
    if !output.status.success() {
        let _ = fs::remove_file(&fresh);
        let text = format!("mke2fs failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Err(Error::new(ErrorKind::Internal, text));
    }
    fs::rename(&fresh, &path).context(|| format!("Cannot write {}", path.display()))?;
    Ok(path)
}

/// Copies a file without its holes, by reflink where the filesystem can.
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut position = 0;
    while let Some(start) = data_after(&source, position)? {
        let end = seek(&source, SeekFrom::Hole(start))?;
        copy_range(&source, &target, start, end)?;
        position = end;
    }
    Ok(())
}

fn data_after(file: &File, position: u64) -> std::io::Result<Option<u64>> {
    match seek(file, SeekFrom::Data(position)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> std::io::Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let left = usize::try_from(end - from).unwrap_or(usize::MAX);
        match copy_file_range(source, Some(&mut from), target, Some(&mut to), left) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            // Two filesystems, or one that cannot.
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return copy_by_hand(source, target, from, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_by_hand(source: &File, target: &File, start: u64, end: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        source.read_exact_at(piece, position)?;
        target.write_all_at(piece, position)?;
        position += wanted as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_sparse_copy_has_the_same_bytes_and_no_more_blocks() {
        let dir = tempfile::tempdir().expect("a folder");
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&from).expect("makes");
        file.set_len(64 << 20).expect("grows");
        file.write_all_at(b"head", 0).expect("writes");
        file.write_all_at(b"middle", 33 << 20).expect("writes");
        copy_sparse(&from, &to).expect("copies");
        let copy = File::open(&to).expect("opens");
        let meta = copy.metadata().expect("has");
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
        let mut bytes = [0; 6];
        copy.read_exact_at(&mut bytes, 33 << 20).expect("reads");
        assert_eq!(&bytes, b"middle");
        let by_hand = File::create(dir.path().join("c")).expect("makes");
        copy_by_hand(&File::open(&from).expect("opens"), &by_hand, 33 << 20, (33 << 20) + 6).expect("copies");
        assert_eq!(by_hand.metadata().expect("has").len(), (33 << 20) + 6);
        assert!(copy_sparse(&from, &to).is_err(), "an existing disk is never overwritten");
    }
}
