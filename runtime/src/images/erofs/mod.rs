//! Turns a layer's tar stream into a read-only EROFS image that the guest's kernel mounts.
//!
//! A writer of our own: the `composefs` crate writes images that hold only metadata (file contents stay outside, in its
//! object store), builds them whole in memory and needs openssl; `erofs-rs` only reads. Ours uses what Linux 6.1 can mount
//! and nothing newer: uncompressed 4 KiB blocks, extended inodes, inline attributes, inline tails, and chunk-based files
//! where there are holes.
//!
//! ```text
//! block 0          superblock, written last
//! data             file contents, in the order of the stream
//! directories      what of them is not inline
//! inodes           breadth first, each followed by its attributes, chunk map and inline tail
//! ```
//!
//! File contents go straight to the output; only the tree stays in memory (`tree`), within [`Limits`]. The stream is
//! hostile: no path of the host but the output's is touched, and the same stream always gives the same image.
//!
//! Format: Linux `Documentation/filesystems/erofs.rst` and the on-disk definitions of 6.1; whiteouts: OCI image
//! specification 1.1, "Layer Filesystem Changeset", and overlayfs' own marks.

mod convert;
mod data;
mod format;
mod layout;
mod output;
mod path;
mod tree;
mod xattr;

use std::io;
use std::path::PathBuf;

use super::tarball::TarError;

pub use convert::{Summary, convert};

/// What one layer may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Files, directories and everything else that has a name.
    pub entries: u32,
    /// Bytes of names, attributes and maps that are kept in memory.
    pub metadata: u64,
    /// Bytes of the uncompressed stream.
    pub unpacked: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4 << 20, metadata: 512 << 20, unpacked: 64 << 30 }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    #[error("Cannot read the layer")]
    Archive {
        #[from]
        source: TarError,
    },
    #[error("The layer's entry {path:?} cannot be used: {problem}")]
    Entry { path: String, problem: Problem },
    #[error("The layer has more than {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    #[error("No space is left for the converted layer {path}; free some or choose another root directory", path = path.display())]
    NoSpace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Cannot write the converted layer {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    DotDot,
    NameTooLong,
    PathTooLong,
    NulByte,
    ParentNotDirectory,
    RootNotDirectory,
    EmptyWhiteout,
    LinkTargetMissing,
    LinkToDirectory,
    LinkTarget,
    TooLarge,
    Xattrs,
    Device,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::DotDot => "its path contains \"..\"",
            Self::NameTooLong => "a name in its path is longer than 255 bytes",
            Self::PathTooLong => "its path is longer than 4096 bytes",
            Self::NulByte => "its path contains a zero byte",
            Self::ParentNotDirectory => "it lies below something that is not a directory",
            Self::RootNotDirectory => "the root can only be a directory",
            Self::EmptyWhiteout => "it is a whiteout of nothing",
            Self::LinkTargetMissing => "the target of the hard link is not in the layer before it",
            Self::LinkToDirectory => "it is a hard link to a directory",
            Self::LinkTarget => "the target of the symlink is empty, too long or contains a zero byte",
            Self::TooLarge => "it is larger than 16 TiB",
            Self::Xattrs => "its extended attributes take more than 64 KiB",
            Self::Device => "its device number is above 12 bits (major) or 20 bits (minor)",
        })
    }
}

#[cfg(test)]
mod tests;
