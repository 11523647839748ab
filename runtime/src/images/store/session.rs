//! One load or pull: everything is made in a directory of its own and appears in the store at once, or not at all.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};

use super::super::digest::Hashing;
use super::super::erofs::{self, LayerError, Limits};
use super::super::tarball::TarError;
use super::super::{Digest, Error, Reference, compression, config};
use super::index::Index;
use super::{Image, Store, sync_dir};

/// An image that is complete but for its layers, which the session has.
pub(in super::super) struct NewImage {
    pub(in super::super) config: Vec<u8>,
    pub(in super::super) manifest: Option<Vec<u8>>,
    pub(in super::super) references: Vec<Reference>,
}

/// The folders of this process's sessions, for [`abandon`]. Held while images are put into the store.
static AT_WORK: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes what loads and pulls at work have made, for a process that is about to end: none of them comes to an end any
/// more. Returns when the store is in order.
pub fn abandon() {
    let at_work = at_work();
    for dir in at_work.iter() {
        // Threads that still make files there begin to fail once it is gone.
        while fs::remove_dir_all(dir).is_err_and(|e| e.kind() == io::ErrorKind::DirectoryNotEmpty) {}
    }
    std::mem::forget(at_work);
}

fn at_work() -> MutexGuard<'static, Vec<PathBuf>> {
    AT_WORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads may convert different layers of one session at the same time.
pub(in super::super) struct Session<'s> {
    store: &'s Store,
    dir: tempfile::TempDir,
    /// Tells other processes that this one lives.
    _alive: File,
    limits: Limits,
}

impl<'s> Session<'s> {
    pub(in super::super) fn begin(store: &'s Store, limits: Limits) -> Result<Self, Error> {
        // Whoever cleans up holds this lock too, and so never sees the directory before its flock is taken.
        let _lock = store.lock(FlockOperation::LockExclusive)?;
        let tmp = store.tmp();
        let mut at_work = at_work();
        let dir = tempfile::tempdir_in(&tmp).map_err(Error::io("create a directory in", &tmp))?;
        let alive = File::open(dir.path()).map_err(Error::io("open", dir.path()))?;
        flock(&alive, FlockOperation::NonBlockingLockExclusive).map_err(|e| Error::io("lock", dir.path())(e.into()))?;
        at_work.push(dir.path().to_path_buf());
        Ok(Self { store, dir, _alive: alive, limits })
    }

    pub(in super::super) fn limits(&self) -> Limits {
        self.limits
    }

    /// A file without a name that lasts as long as the handle.
    pub(in super::super) fn scratch(&self) -> Result<File, Error> {
        tempfile::tempfile_in(self.dir.path()).map_err(Error::io("create a file in", self.dir.path()))
    }

    pub(in super::super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether the layer need not be converted any more. If the store has it, it is kept from being removed meanwhile.
    pub(in super::super) fn has(&self, diff_id: &Digest) -> Result<bool, Error> {
        let own = self.own(diff_id);
        match fs::hard_link(self.store.layer(diff_id), &own) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("link", &own)(e)),
        }
    }

    /// Converts a layer from a stream that may be compressed, and checks that it is the one with this diff id. The stream
    /// is read to its end, unless there is an error.
    pub(in super::super) fn convert<R: Read>(&self, diff_id: &Digest, stream: R) -> Result<(), Error> {
        let failed = |source| Error::Layer { layer: diff_id.clone(), source };
        let unreadable = |source| failed(LayerError::Archive { source: TarError::Read { source } });
        let partial = self.dir.path().join(format!("{}.partial", diff_id.hex()));
        let file = File::create(&partial).map_err(Error::io("create", &partial))?;
        let (_, content) = compression::decompress(stream).map_err(unreadable)?;
        let mut hashing = Hashing::new(content);
        let converted = erofs::convert(&mut hashing, file, &partial, self.limits);
        if let Err(error) = converted {
            let _ = fs::remove_file(&partial);
            return Err(failed(error));
        }
        let (found, _) = hashing.finish();
        if found != *diff_id {
            let _ = fs::remove_file(&partial);
            let name = "the uncompressed layer".to_owned();
            return Err(Error::WrongDigest { name, expected: diff_id.clone(), found });
        }
        let own = self.own(diff_id);
        fs::rename(&partial, &own).map_err(Error::io("rename", &own))
    }

    /// Puts the images into the store.
    pub(in super::super) fn commit(self, images: Vec<NewImage>) -> Result<Vec<Image>, Error> {
        let store = self.store;
        let _lock = store.lock(FlockOperation::LockExclusive)?;
        let _at_work = at_work();
        let index = store.index()?;
        self.publish(images, index).inspect_err(|_| {
            // What was put there is of no image. When that cannot be removed either, the first error is the one to tell.
            let _ = store.index().and_then(|index| store.collect(&index));
        })
    }

    fn publish(&self, images: Vec<NewImage>, mut index: Index) -> Result<Vec<Image>, Error> {
        let store = self.store;
        let mut ids = Vec::new();
        for image in images {
            let diff_ids = config::diff_ids(&config::parse(&image.config)?)?;
            for diff_id in &diff_ids {
                self.publish_layer(diff_id)?;
            }
            let id = self.publish_blob(&image.config)?;
            let manifest = image.manifest.as_deref().map(|m| self.publish_blob(m)).transpose()?;
            index.add(&id, manifest, diff_ids);
            for reference in &image.references {
                index.refer(&id, reference);
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        sync_dir(&store.layers())?;
        sync_dir(&store.blobs())?;
        index.write(&store.root)?;
        let added = index.images.iter().filter(|e| ids.contains(&e.id));
        added.map(|entry| store.image(entry)).collect()
    }

    fn own(&self, diff_id: &Digest) -> PathBuf {
        self.dir.path().join(format!("{}.erofs", diff_id.hex()))
    }

    fn publish_layer(&self, diff_id: &Digest) -> Result<(), Error> {
        let public = self.store.layer(diff_id);
        match fs::hard_link(self.own(diff_id), &public) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("link", &public)(e)),
            _ => Ok(()),
        }
    }

    fn publish_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let public = self.store.blob(&digest);
        let own = self.dir.path().join(digest.hex());
        let written = File::create(&own).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&own, &public)).map_err(Error::io("write", &public))?;
        Ok(digest)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        at_work().retain(|dir| dir != self.dir.path());
    }
}
