//! Named files in a tar or a folder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::super::blob::{MAX_JSON, blob_name};
use super::super::compression::decompress;
use super::super::store::Session;
use super::super::tarball::{EntryKind, Reader, TarError};
use super::super::{Digest, Error};
use super::Source;

const MAX_MEMBERS: usize = 100_000;
const MAX_NAME: usize = 4096;

/// How many symlinks in a row are followed: docker's older archives use them for layers that images share.
const MAX_LINKS: usize = 8;

pub(super) enum Archive {
    Tar { file: Arc<File>, members: HashMap<String, Member> },
    Folder { dir: OwnedFd, path: PathBuf },
}

pub(super) enum Member {
    File { start: u64, length: u64 },
    Link(String),
}

/// A part of a file.
pub(super) struct Blob {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Archive {
    pub(super) fn open(source: Source, session: &Session<'_>) -> Result<Self, Error> {
        let (stream, path): (Box<dyn Read>, _) = match source {
            Source::Stream(stream) => (stream, PathBuf::from("standard input")),
            Source::Path(path) => {
                let file = File::open(&path).map_err(Error::io("open", &path))?;
                let meta = file.metadata().map_err(Error::io("examine", &path))?;
                if meta.is_dir() {
                    return Ok(Self::Folder { dir: file.into(), path });
                }
                if meta.is_file()
                    && let Some(file) = uncompressed(file.try_clone().map_err(Error::io("open", &path))?)
                        .map_err(Error::io("read", &path))?
                {
                    return Self::index(file, &path);
                }
                (Box::new(file), path)
            }
        };
        let spooled = spool(stream, &path, session)?;
        Self::index(spooled, &path)
    }

    fn index(file: File, path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Archive { path: path.to_path_buf(), source };
        let end = file.metadata().map_err(Error::io("examine", path))?.len();
        let mut reader = Reader::seeking(BufReader::new(&file));
        let mut members = HashMap::new();
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let start = reader.position();
            if start.saturating_add(entry.stored) > end {
                return Err(failed(TarError::Truncated));
            }
            let member = match entry.kind {
                EntryKind::File if entry.extents.is_none() => Member::File { start, length: entry.stored },
                EntryKind::Symlink | EntryKind::HardLink => {
                    let base = if entry.kind == EntryKind::Symlink { parent(&entry.path) } else { &[] };
                    let Some(target) = normal(&[base, b"/", &entry.link].concat()) else { continue };
                    Member::Link(target)
                }
                _ => continue,
            };
            // A name that cannot be asked for need not be kept.
            if let Some(name) = normal(&entry.path) {
                members.insert(name, member);
            }
            if members.len() > MAX_MEMBERS {
                return Err(Error::Nonsense { what: format!("the archive has more than {MAX_MEMBERS} members") });
            }
        }
        drop(reader);
        Ok(Self::Tar { file: Arc::new(file), members })
    }

    pub(super) fn has(&self, name: &str) -> Result<bool, Error> {
        Ok(self.find(name)?.is_some())
    }

    pub(super) fn blob(&self, name: &str) -> Result<Blob, Error> {
        self.find(name)?.ok_or_else(|| Error::Missing { name: name.to_owned() })
    }

    /// A whole file, of bounded size.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let mut blob = self.blob(name)?;
        if blob.length() > MAX_JSON {
            return Err(Error::Nonsense { what: format!("{name} is larger than {MAX_JSON} bytes") });
        }
        let mut bytes = Vec::new();
        blob.read_to_end(&mut bytes).map_err(Error::io("read", Path::new(name)))?;
        Ok(bytes)
    }

    /// The blob of an OCI layout that has this digest, which is checked.
    pub(super) fn read_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let name = blob_name(digest);
        let bytes = self.read(&name)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::WrongDigest { name, expected: digest.clone(), found });
        }
        if bytes.len() as u64 != size {
            return Err(Error::WrongSize { name, expected: size, found: bytes.len() as u64 });
        }
        Ok(bytes)
    }

    fn find(&self, name: &str) -> Result<Option<Blob>, Error> {
        let (file, start, length) = match self {
            Self::Tar { file, members } => {
                let Some(mut at) = normal(name.as_bytes()) else { return Ok(None) };
                let mut links = 0;
                loop {
                    match members.get(&at) {
                        Some(Member::File { start, length }) => break (Arc::clone(file), *start, *length),
                        Some(Member::Link(target)) if links < MAX_LINKS => at.clone_from(target),
                        _ => return Ok(None),
                    }
                    links += 1;
                }
            }
            Self::Folder { dir, path } => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let file = match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
                    Ok(file) => File::from(file),
                    Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
                    Err(e) => return Err(Error::io("open", &path.join(name))(e.into())),
                };
                let meta = file.metadata().map_err(Error::io("examine", &path.join(name)))?;
                if !meta.is_file() {
                    return Ok(None);
                }
                (Arc::new(file), 0, meta.len())
            }
        };
        Ok(Some(Blob { file, position: start, end: start.saturating_add(length) }))
    }
}

impl Blob {
    pub(super) fn length(&self) -> u64 {
        self.end.saturating_sub(self.position)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.length()).unwrap_or(usize::MAX).min(buffer.len());
        let got = self.file.read_at(buffer.get_mut(..want).unwrap_or_default(), self.position)?;
        self.position = self.position.saturating_add(got as u64);
        Ok(got)
    }
}

/// Gives the file back, at its start, if it can be read as it is.
fn uncompressed(mut file: File) -> io::Result<Option<File>> {
    let (compressed, _) = decompress(&file)?;
    file.rewind()?;
    Ok((!compressed).then_some(file))
}

/// Puts a stream's content into a file of the store's, since images name their parts in any order.
fn spool(stream: Box<dyn Read>, path: &Path, session: &Session<'_>) -> Result<File, Error> {
    let limit = session.limits().unpacked;
    let (_, content) = decompress(stream).map_err(Error::io("read", path))?;
    let mut content = content.take(limit.saturating_add(1));
    let mut file = session.scratch()?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0u64;
    loop {
        let got = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::Archive { path: path.to_path_buf(), source: TarError::Truncated });
            }
            Err(e) => return Err(Error::io("read", path)(e)),
        };
        total = total.saturating_add(got as u64);
        if total > limit {
            return Err(Error::ArchiveTooLarge { limit });
        }
        file.write_all(buffer.get(..got).unwrap_or_default()).map_err(Error::io("write to", session.path()))?;
    }
    file.rewind().map_err(Error::io("read", session.path()))?;
    Ok(file)
}

fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

/// The one way to write a name; `None` for what leads out of the archive or is no text.
fn normal(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok().filter(|n| n.len() <= MAX_NAME)?;
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        assert_eq!(normal(b"./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(normal(b"/a").as_deref(), Some("a"));
        for bad in [&b".."[..], b"a/../..", b"", b"./", b"\xff"] {
            assert_eq!(normal(bad), None);
        }
    }
}
