//! The store: what images there are, and their layers, as files under one directory that processes share.
//!
//! ```text
//! lock                     flock: exclusive to change anything named here, shared to rely on an image staying
//! images.json              every image with its references and layers; replaced whole, by rename
//! blobs/sha256/<hex>       configurations and manifests
//! layers/<hex>.erofs       a layer, converted, by its diff id; shared by all images that have it
//! tmp/<random>/            one load or pull at work, which holds a flock on the directory
//! ```
//!
//! Compressed layers are not kept: nothing here reads them again, and a registry that gets an image back wants the digest
//! of its own compression, which only it knows. What is not in `images.json` does not exist: files come first, the index
//! last, and whoever finds an orphan may delete it. A process that dies leaves at most its directory in `tmp`, whose flock
//! dies with it; the next [`Store::open`] removes it.

mod index;
mod remove;
mod session;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use rustix::fs::{FlockOperation, flock};

use super::{Digest, Error, Reference};
use index::{Entry, Index};

pub use remove::{Removed, Use};
pub use session::abandon;
pub(super) use session::{NewImage, Session};

/// A layer as it is mounted. Its length is a multiple of 4096.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub diff_id: Digest,
    pub path: PathBuf,
    pub length: u64,
}

/// An image in the store.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of its configuration.
    pub id: Digest,
    /// Names, sorted; none when newer images took all of them.
    pub references: Vec<Reference>,
    /// Digest of the manifest that it was pulled or loaded with.
    pub manifest: Option<Digest>,
    pub config: ImageConfiguration,
    /// Lowest first. A layer that an image has twice is listed once, where it is uppermost: all that is below shows nothing.
    pub layers: Vec<Layer>,
    /// Bytes of the layers.
    pub size: u64,
    /// RFC 3339.
    pub created: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// As long as one exists, no process removes images or layers.
#[derive(Debug)]
pub struct Pin {
    _lock: File,
}

impl Store {
    /// Opens the store in a directory, which is made if need be, and cleans up behind processes that died.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoSpace`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, Error> {
        let store = Self { root: root.into() };
        for dir in [store.blobs(), store.layers(), store.tmp()] {
            fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        }
        store.clean()?;
        Ok(store)
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Keeps all images where they are until the pin is dropped: to be held from [`Store::resolve`] until it is on record
    /// that something uses the image.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn pin(&self) -> Result<Pin, Error> {
        Ok(Pin { _lock: self.lock(FlockOperation::LockShared)? })
    }

    /// Finds an image by name, id, or the unambiguous start of an id.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ambiguous`], or that the store cannot be read.
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let index = self.index()?;
        let (entry, _) = index.find(name)?;
        self.image(entry)
    }

    /// All images, newest in the store first.
    ///
    /// # Errors
    /// That the store cannot be read.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        self.index()?.images.iter().rev().map(|entry| self.image(entry)).collect()
    }

    /// Gives the image `source` one more name, which another image may lose by it.
    ///
    /// # Errors
    /// As [`Store::resolve`]; [`Error::InvalidReference`].
    pub fn tag(&self, source: &str, target: &str) -> Result<(), Error> {
        let reference = Reference::parse(target)?;
        if matches!(reference.version(), super::Version::Digest(_)) {
            let reference = target.to_owned();
            return Err(Error::InvalidReference { reference, problem: "a digest cannot be given to an image" });
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let mut index = self.index()?;
        let id = index.find(source)?.0.id.clone();
        index.refer(&id, &reference);
        index.write(&self.root)
    }

    fn image(&self, entry: &Entry) -> Result<Image, Error> {
        let path = self.blob(&entry.id);
        let bytes = fs::read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Damaged { what: format!("the configuration {} is missing", entry.id) },
            _ => Error::io("read", &path)(e),
        })?;
        let config = super::config::parse(&bytes)?;
        let mut layers: Vec<Layer> = Vec::with_capacity(entry.layers.len());
        for diff_id in &entry.layers {
            let path = self.layer(diff_id);
            let meta = fs::metadata(&path).map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => Error::Damaged { what: format!("the layer {diff_id} is missing") },
                _ => Error::io("examine", &path)(e),
            })?;
            layers.retain(|l| l.diff_id != *diff_id);
            layers.push(Layer { diff_id: diff_id.clone(), path, length: meta.len() });
        }
        let mut references = entry.references();
        references.sort();
        Ok(Image {
            id: entry.id.clone(),
            references,
            manifest: entry.manifest.clone(),
            created: config.created().clone(),
            config,
            size: layers.iter().map(|l| l.length).sum(),
            layers,
        })
    }

    fn index(&self) -> Result<Index, Error> {
        Index::read(&self.root)
    }

    fn lock(&self, operation: FlockOperation) -> Result<File, Error> {
        let path = self.root.join("lock");
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        let file = open.map_err(Error::io("open", &path))?;
        rustix::io::retry_on_intr(|| flock(&file, operation)).map_err(|e| Error::io("lock", &path)(e.into()))?;
        Ok(file)
    }

    /// Removes the directories of processes that died, and what they may have left elsewhere.
    fn clean(&self) -> Result<(), Error> {
        let tmp = self.tmp();
        let found = fs::read_dir(&tmp).and_then(|mut entries| entries.next().transpose());
        if found.map_err(Error::io("read", &tmp))?.is_none() {
            return Ok(());
        }
        let _lock = self.lock(FlockOperation::LockExclusive)?;
        let mut dead = false;
        for entry in fs::read_dir(&tmp).map_err(Error::io("read", &tmp))? {
            let path = entry.map_err(Error::io("read", &tmp))?.path();
            let Ok(dir) = File::open(&path) else { continue };
            if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() {
                continue;
            }
            dead = true;
            let outcome = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            outcome.map_err(Error::io("remove", &path))?;
        }
        if dead { self.collect(&self.index()?) } else { Ok(()) }
    }

    /// Removes layers and blobs that no image has. The exclusive lock is held.
    fn collect(&self, index: &Index) -> Result<(), Error> {
        let layers = index.images.iter().flat_map(|e| &e.layers).map(|d| format!("{}.erofs", d.hex())).collect();
        remove_others(&self.layers(), &layers)?;
        let ids = index.images.iter().map(|e| &e.id);
        let manifests = index.images.iter().filter_map(|e| e.manifest.as_ref());
        remove_others(&self.blobs(), &ids.chain(manifests).map(|d| d.hex().to_owned()).collect())
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(format!("{}.erofs", diff_id.hex()))
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }
}

fn remove_others(dir: &Path, keep: &std::collections::HashSet<String>) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let entry = entry.map_err(Error::io("read", dir))?;
        if entry.file_name().to_str().is_none_or(|name| !keep.contains(name)) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// Makes renames in a directory last.
fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(Error::io("write", dir))
}

#[cfg(test)]
mod tests;
