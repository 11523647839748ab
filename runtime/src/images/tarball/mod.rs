//! Reads tar archives as a stream: what layers and image archives come in.
//!
//! Owns the formats (v7, ustar, GNU, PAX, and GNU's four ways to say that a file is sparse) and nothing else: names are
//! bytes that are given back as they are, and no path of the host is ever formed from them. A reader of our own, since the
//! `tar` crate reads extension headers of any size into memory, splits PAX records at newlines (which binary attribute
//! values contain) and turns holes into zeros that somebody has to read.
//!
//! Formats: POSIX.1-2017 `pax`, "ustar Interchange Format" and "pax Header"; GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files".

mod fields;
mod pax;
mod sparse;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

pub use sparse::Extent;

use fields::Header;
use pax::Records;

/// Unit of everything in an archive, in bytes.
pub const BLOCK: u64 = 512;

/// The longest extension header that is taken into memory.
const MAX_EXTENSION: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    #[error("Cannot read the archive")]
    Read {
        #[source]
        source: io::Error,
    },
    #[error("The archive is truncated: it ends within an entry")]
    Truncated,
    #[error("This is not a tar archive, or it is damaged: the checksum at byte {position} is wrong")]
    Checksum { position: u64 },
    #[error("The archive is damaged: {what}")]
    Malformed { what: &'static str },
    #[error("The archive's {what} is longer than {limit} bytes")]
    TooLong { what: &'static str, limit: u64 },
    #[error("The archive has an entry of the type {kind:?}, which is not supported")]
    UnsupportedKind { kind: char },
}

impl TarError {
    fn read(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read { source },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// Seconds since the epoch, and the nanoseconds that follow them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// One entry, as the archive alleges it.
#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    /// Target of a symlink or a hard link.
    pub link: Vec<u8>,
    pub kind: EntryKind,
    /// Permission bits with set-id and sticky bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Bytes that [`Reader::read`] gives.
    pub stored: u64,
    /// (major, minor)
    pub device: (u32, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Of a sparse file: where its stored bytes belong, ascending and apart.
    pub extents: Option<Vec<Extent>>,
}

/// An archive on its way in. Entries are given in order; what was not read of one is skipped.
pub struct Reader<R> {
    inner: R,
    skip: fn(&mut R, u64) -> io::Result<()>,
    position: u64,
    stored: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, skip: skip_by_reading, position: 0, stored: 0, padding: 0 }
    }

    /// Bytes consumed.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    /// The next entry, or `None` at the archive's end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut records = Records::default();
        let mut extended = false;
        loop {
            self.finish_entry()?;
            let Some(header) = self.header()? else {
                return if extended { Err(TarError::Truncated) } else { Ok(None) };
            };
            self.set_stored(header.size()?)?;
            extended = true;
            match header.kind() {
                b'L' => records.path = Some(trim_nul(self.extension("long name")?)),
                b'K' => records.link = Some(trim_nul(self.extension("long link target")?)),
                b'x' => records.parse(&self.extension("PAX header")?)?,
                // Global records speak of the archive as a whole; engines ignore them in layers, and so do we.
                b'g' | b'V' => extended = false,
                _ => return self.entry(&header, records).map(Some),
            }
        }
    }

    /// Reads stored bytes of the current entry; 0 at their end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.stored).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..want) else { return Ok(0) };
        self.inner.read_exact(part).map_err(TarError::read)?;
        self.stored = self.stored.saturating_sub(want as u64);
        self.position = self.position.saturating_add(want as u64);
        Ok(want)
    }

    fn entry(&mut self, header: &Header, records: Records) -> Result<Entry, TarError> {
        if let Some(size) = records.size {
            self.set_stored(size)?;
        }
        let mut path = records.path.unwrap_or_else(|| header.path());
        let kind = kind_of(header.kind(), &path)?;
        let mut size = self.stored;
        let mut extents = None;
        if header.kind() == b'S' {
            let (map, real) = self.old_sparse(header)?;
            extents = Some(map);
            size = real;
        } else if let Some(sparse) = records.sparse {
            if sparse.needs_data() {
                extents = Some(self.sparse_map_in_data()?);
            } else {
                extents = Some(sparse.map()?);
            }
            size = sparse.size.ok_or(TarError::Malformed { what: "a sparse file has no size" })?;
            path = sparse.name.unwrap_or(path);
        }
        if let Some(extents) = &extents {
            sparse::check(extents, size, self.stored)?;
        }
        if kind != EntryKind::File {
            size = 0;
        }
        Ok(Entry {
            path,
            link: records.link.unwrap_or_else(|| header.link()),
            kind,
            mode: u16::try_from(header.mode()? & 0o7777).unwrap_or(0),
            uid: owner(records.uid.map_or_else(|| header.uid(), Ok)?)?,
            gid: owner(records.gid.map_or_else(|| header.gid(), Ok)?)?,
            mtime: records.mtime.map_or_else(|| header.mtime(), Ok)?,
            size,
            stored: self.stored,
            device: match kind {
                EntryKind::CharDevice | EntryKind::BlockDevice => header.device()?,
                _ => (0, 0),
            },
            xattrs: records.xattrs,
            extents,
        })
    }

    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let start = self.position;
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = Header::new(block);
        if header.checksum_holds() { Ok(Some(header)) } else { Err(TarError::Checksum { position: start }) }
    }

    /// `None` at the very end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, TarError> {
        let mut block = [0; BLOCK as usize];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|r| !r.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TarError::read(e)),
            }
        }
        self.position = self.position.saturating_add(BLOCK);
        Ok(Some(block))
    }

    fn set_stored(&mut self, size: u64) -> Result<(), TarError> {
        if size > i64::MAX as u64 {
            return Err(TarError::Malformed { what: "an entry's size is impossible" });
        }
        self.stored = size;
        self.padding = size.wrapping_neg() % BLOCK;
        Ok(())
    }

    fn extension(&mut self, what: &'static str) -> Result<Vec<u8>, TarError> {
        if self.stored > MAX_EXTENSION {
            return Err(TarError::TooLong { what, limit: MAX_EXTENSION });
        }
        let mut content = vec![0; usize::try_from(self.stored).unwrap_or(0)];
        self.read(&mut content)?;
        Ok(content)
    }

    fn finish_entry(&mut self) -> Result<(), TarError> {
        let rest = self.stored.saturating_add(self.padding);
        if rest > 0 {
            (self.skip)(&mut self.inner, rest).map_err(TarError::read)?;
        }
        self.position = self.position.saturating_add(rest);
        self.stored = 0;
        self.padding = 0;
        Ok(())
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Skips by seeking: reads of an archive only its headers. Cannot tell an archive that ends within an entry.
    pub fn seeking(inner: R) -> Self {
        Self { skip: skip_by_seeking, ..Self::new(inner) }
    }
}

fn skip_by_reading<R: Read>(inner: &mut R, amount: u64) -> io::Result<()> {
    let skipped = io::copy(&mut inner.by_ref().take(amount), &mut io::sink())?;
    if skipped == amount { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn skip_by_seeking<R: Read + Seek>(inner: &mut R, amount: u64) -> io::Result<()> {
    inner.seek_relative(i64::try_from(amount).map_err(io::Error::other)?)
}

fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn owner(id: u64) -> Result<u32, TarError> {
    u32::try_from(id).map_err(|_| TarError::Malformed { what: "an owner's number is above 32 bits" })
}

fn kind_of(flag: u8, path: &[u8]) -> Result<EntryKind, TarError> {
    match flag {
        // Before ustar, a directory was a file whose name ends in a slash.
        0 | b'0' if path.ends_with(b"/") => Ok(EntryKind::Directory),
        0 | b'0' | b'7' | b'S' => Ok(EntryKind::File),
        b'1' => Ok(EntryKind::HardLink),
        b'2' => Ok(EntryKind::Symlink),
        b'3' => Ok(EntryKind::CharDevice),
        b'4' => Ok(EntryKind::BlockDevice),
        b'5' => Ok(EntryKind::Directory),
        b'6' => Ok(EntryKind::Fifo),
        other => Err(TarError::UnsupportedKind { kind: char::from(other) }),
    }
}

#[cfg(test)]
mod tests;
