//! The directory that the guest mounts: made up, never written by the guest, with an entry for each tree or file of the host
//! that it shall see.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// Entries at once.
const MAX_ENTRIES: usize = 4096;

/// A tree or a single file.
#[derive(Debug)]
pub struct Entry {
    pub id: u64,
    pub name: String,
    read_only: AtomicBool,
    /// The tree's directory, or the file.
    pub top: OwnedFd,
    removed: AtomicBool,
}

impl Entry {
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::SeqCst)
    }

    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::SeqCst)
    }
}

/// All entries, in the order in which they came.
#[derive(Debug, Default)]
pub struct Tree {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: BTreeMap<u64, Arc<Entry>>,
    last: u64,
}

impl Tree {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `EEXIST`, `EINVAL` for a name that is none, `ENOSPC` when there are too many.
    pub fn add(&self, name: &str, read_only: bool, top: OwnedFd) -> Result<(), Errno> {
        let bad = |c: char| c == '/' || c.is_control() || c.is_whitespace();
        if name.is_empty() || name.len() > 255 || name == "." || name == ".." || name.contains(bad) {
            return Err(Errno::INVAL);
        }
        let mut entries = self.lock();
        if entries.by_id.len() >= MAX_ENTRIES {
            return Err(Errno::NOSPC);
        }
        if entries.by_id.values().any(|entry| entry.name == name) {
            return Err(Errno::EXIST);
        }
        let id = entries.last.checked_add(1).ok_or(Errno::NOSPC)?;
        entries.last = id;
        let (name, read_only) = (name.to_owned(), AtomicBool::new(read_only));
        let entry = Entry { id, name, read_only, top, removed: AtomicBool::new(false) };
        entries.by_id.insert(id, Arc::new(entry));
        Ok(())
    }

    /// Takes an entry out; whatever is below it can then be asked for no more.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, name: &str) -> Result<Arc<Entry>, Errno> {
        let mut entries = self.lock();
        let id = entries.by_id.values().find(|entry| entry.name == name).map(|entry| entry.id).ok_or(Errno::NOENT)?;
        let entry = entries.by_id.remove(&id).ok_or(Errno::NOENT)?;
        entry.removed.store(true, Ordering::SeqCst);
        Ok(entry)
    }

    /// Makes an entry read-only from now on.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn seal(&self, name: &str) -> Result<Arc<Entry>, Errno> {
        let entry = self.find(name.as_bytes())?;
        entry.read_only.store(true, Ordering::SeqCst);
        Ok(entry)
    }

    /// # Errors
    /// `ENOENT`.
    pub fn find(&self, name: &[u8]) -> Result<Arc<Entry>, Errno> {
        self.lock().by_id.values().find(|entry| entry.name.as_bytes() == name).cloned().ok_or(Errno::NOENT)
    }

    #[must_use]
    pub fn after(&self, id: u64) -> Vec<Arc<Entry>> {
        let Some(next) = id.checked_add(1) else { return Vec::new() };
        self.lock().by_id.range(next..).map(|(_, entry)| entry.clone()).collect()
    }
}
