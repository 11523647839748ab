//! `images.json`: the one file that says which images exist.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::digest::is_hex;
use super::super::{Digest, Error, Reference};
use super::sync_dir;

const FILE: &str = "images.json";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    version: u32,
    /// In the order in which they came.
    pub(super) images: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: Digest,
    pub(super) manifest: Option<Digest>,
    /// Canonical.
    names: Vec<String>,
    /// Diff ids, lowest first.
    pub(super) layers: Vec<Digest>,
}

/// How an image was named when it was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum By {
    Id,
    Reference(Reference),
}

impl Index {
    pub(super) fn read(root: &Path) -> Result<Self, Error> {
        let path = root.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { version: VERSION, images: vec![] }),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let what = || format!("{} of the image store", path.display());
        let index: Self = serde_json::from_slice(&bytes).map_err(|source| Error::Json { what: what(), source })?;
        if index.version != VERSION {
            return Err(Error::Unsupported { what: format!("version {} of {}", index.version, what()) });
        }
        Ok(index)
    }

    /// Replaces the file. The exclusive lock is held.
    pub(super) fn write(&self, root: &Path) -> Result<(), Error> {
        let path = root.join(FILE);
        // One name is enough under the lock, and what a crash leaves of it is written over.
        let new = root.join("images.json.new");
        let json = serde_json::to_vec_pretty(self).map_err(|source| Error::Json { what: FILE.to_owned(), source })?;
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&json)?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&new, &path)).map_err(|e| {
            let _ = fs::remove_file(&new);
            Error::io("write", &path)(e)
        })?;
        sync_dir(root)
    }

    pub(super) fn find(&self, name: &str) -> Result<(&Entry, By), Error> {
        let missing = || Error::NotFound { name: name.to_owned() };
        let (digits, only_id) = match name.strip_prefix("sha256:") {
            Some(digits) => (digits, true),
            None => (name, name.len() == 64),
        };
        let prefix = is_hex(digits) && !digits.is_empty();
        if !(only_id && prefix) {
            let reference = Reference::parse(name);
            if let Ok(reference) = &reference
                && let Some(entry) = self.images.iter().find(|e| e.has(reference))
            {
                return Ok((entry, By::Reference(reference.clone())));
            }
            if !prefix {
                return Err(reference.err().unwrap_or_else(missing));
            }
        }
        let mut found = self.images.iter().filter(|e| e.id.hex().starts_with(digits));
        let first = found.next().ok_or_else(missing)?;
        match found.next() {
            Some(_) => Err(Error::Ambiguous { prefix: digits.to_owned() }),
            None => Ok((first, By::Id)),
        }
    }

    /// Adds an image, or finds it.
    pub(super) fn add(&mut self, id: &Digest, manifest: Option<Digest>, layers: Vec<Digest>) {
        match self.images.iter_mut().find(|e| e.id == *id) {
            Some(entry) => entry.manifest = manifest.or(entry.manifest.take()),
            None => self.images.push(Entry { id: id.clone(), manifest, names: vec![], layers }),
        }
    }

    /// Gives a name to this image and to no other.
    pub(super) fn refer(&mut self, id: &Digest, reference: &Reference) {
        let name = reference.canonical();
        for entry in &mut self.images {
            entry.names.retain(|n| *n != name);
            if entry.id == *id {
                entry.names.push(name.clone());
            }
        }
    }
}

impl Entry {
    pub(super) fn references(&self) -> Vec<Reference> {
        self.names.iter().filter_map(|n| Reference::parse(n).ok()).collect()
    }

    pub(super) fn forget(&mut self, reference: &Reference) {
        let name = reference.canonical();
        self.names.retain(|n| *n != name);
    }

    fn has(&self, reference: &Reference) -> bool {
        self.names.contains(&reference.canonical())
    }
}
