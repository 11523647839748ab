//! From the stream's entries to the tree.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::super::tarball::{Entry, EntryKind, Reader, TarError};
use super::data::Files;
use super::output::Output;
use super::path::{Mark, components, mark};
use super::tree::{Attributes, Directory, Kind, Node, ROOT, Refusal, Tree};
use super::{LayerError, Limits, Problem, layout, xattr};

/// Linux' PATH_MAX without the zero.
const MAX_TARGET: usize = 4095;

/// What a conversion made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the image; a multiple of 4096.
    pub length: u64,
    /// Bytes of the stream.
    pub unpacked: u64,
}

/// Writes the layer in `stream` as an EROFS image to `file`, which is empty and called `path` in messages. Reads the stream
/// to its end, also behind the archive's, so that a digest of it is complete. On an error, `file` is useless.
pub fn convert<R: Read>(stream: R, file: File, path: &Path, limits: Limits) -> Result<Summary, LayerError> {
    let mut converter = Converter {
        reader: Reader::new(stream),
        tree: Tree::new(limits),
        out: Output::new(file, path.to_path_buf()),
        files: Files::new(),
    };
    let too_long = || LayerError::Limit { what: "bytes of content", limit: limits.unpacked };
    while let Some(entry) = converter.reader.next_entry()? {
        if converter.reader.position().saturating_add(entry.stored) > limits.unpacked {
            return Err(too_long());
        }
        converter.entry(&entry)?;
    }
    let position = converter.reader.position();
    let left = limits.unpacked.saturating_sub(position);
    let mut rest = converter.reader.into_inner().take(left.saturating_add(1));
    let trailing = io::copy(&mut rest, &mut io::sink()).map_err(|source| TarError::Read { source })?;
    if trailing > left {
        return Err(too_long());
    }
    converter
        .tree
        .mark_opaque()
        .map_err(|problem| LayerError::Entry { path: "an opaque directory".to_owned(), problem })?;
    let length = layout::write(&converter.tree, converter.out)?;
    Ok(Summary { length, unpacked: position.saturating_add(trailing) })
}

struct Converter<R> {
    reader: Reader<R>,
    tree: Tree,
    out: Output,
    files: Files,
}

impl<R: Read> Converter<R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        match self.place(entry) {
            Ok(()) => Ok(()),
            Err(Refusal::Layer(error)) => Err(error),
            Err(Refusal::Entry(problem)) => {
                Err(LayerError::Entry { path: String::from_utf8_lossy(&entry.path).into_owned(), problem })
            }
        }
    }

    fn place(&mut self, entry: &Entry) -> Result<(), Refusal> {
        let path = components(&entry.path)?;
        let Some((name, parents)) = path.split_last() else { return self.root(entry) };
        match mark(&path)? {
            Mark::Ignored => return Ok(()),
            Mark::Opaque => {
                let directory = self.tree.directory(parents, entry.mtime)?;
                self.tree.set_opaque(directory);
                return Ok(());
            }
            Mark::Whiteout(hidden) => {
                let parent = self.tree.directory(parents, entry.mtime)?;
                let attributes = Attributes { mtime: entry.mtime, ..Attributes::default() };
                self.tree.place(parent, hidden, Node { attributes, kind: Kind::Whiteout })?;
                return Ok(());
            }
            Mark::Ordinary => {}
        }
        let parent = self.tree.directory(parents, entry.mtime)?;
        if entry.kind == EntryKind::HardLink {
            let target = self.tree.link_target(&components(&entry.link)?)?;
            return self.tree.link(parent, name, target);
        }
        let attributes = attributes(entry)?;
        let kind = self.kind(entry, &attributes.xattrs)?;
        self.tree.place(parent, name, Node { attributes, kind })?;
        Ok(())
    }

    fn root(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if entry.kind != EntryKind::Directory {
            return Err(Problem::RootNotDirectory.into());
        }
        let attributes = attributes(entry)?;
        self.tree.charge(attributes.xattrs.len()).map_err(Refusal::Layer)?;
        self.tree.set_attributes(ROOT, attributes);
        Ok(())
    }

    fn kind(&mut self, entry: &Entry, xattrs: &[u8]) -> Result<Kind, Refusal> {
        Ok(match entry.kind {
            EntryKind::Directory => Kind::Directory(Directory::default()),
            EntryKind::Symlink => {
                if entry.link.is_empty() || entry.link.len() > MAX_TARGET || entry.link.contains(&0) {
                    return Err(Problem::LinkTarget.into());
                }
                Kind::Symlink(entry.link.as_slice().into())
            }
            EntryKind::CharDevice => Kind::CharDevice(device(entry.device)?),
            EntryKind::BlockDevice => Kind::BlockDevice(device(entry.device)?),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::File | EntryKind::HardLink => {
                let stored = self.files.store(&mut self.out, &mut self.reader, entry, xattrs);
                Kind::File { size: entry.size, contents: stored.map_err(Refusal::Layer)?? }
            }
        })
    }
}

fn attributes(entry: &Entry) -> Result<Attributes, Problem> {
    Ok(Attributes {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: xattr::encode(&entry.xattrs)?,
    })
}

/// Linux' encoding of device numbers in 32 bits.
fn device((major, minor): (u32, u32)) -> Result<u32, Problem> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Problem::Device);
    }
    Ok(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}
