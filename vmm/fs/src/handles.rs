//! Files and directories that the guest has open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::tree::Entry;

/// An open file or directory.
#[derive(Debug)]
pub struct Handle {
    pub file: OwnedFd,
    pub entry: Arc<Entry>,
    /// Held while a directory's position is in use.
    pub reading: Mutex<()>,
}

/// All of them.
#[derive(Debug)]
pub struct Handles {
    table: Mutex<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<u64, Arc<Handle>>,
    last: u64,
}

impl Handles {
    /// There will be at most `limit` at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { table: Mutex::default(), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `writes`: whether the file is open for that.
    ///
    /// # Errors
    /// `ENFILE` when too many are open; `ESTALE` when the entry is gone meanwhile, `EROFS` when it was sealed.
    pub fn open(&self, entry: &Arc<Entry>, file: OwnedFd, writes: bool) -> Result<u64, Errno> {
        let mut table = self.lock();
        if entry.is_removed() {
            return Err(Errno::STALE);
        }
        if writes && entry.is_read_only() {
            return Err(Errno::ROFS);
        }
        if table.by_id.len() >= self.limit {
            return Err(Errno::NFILE);
        }
        let id = table.last.checked_add(1).ok_or(Errno::NFILE)?;
        table.last = id;
        table.by_id.insert(id, Arc::new(Handle { file, entry: entry.clone(), reading: Mutex::new(()) }));
        Ok(id)
    }

    /// # Errors
    /// `EBADF` for a number that is not given out.
    pub fn get(&self, id: u64) -> Result<Arc<Handle>, Errno> {
        self.lock().by_id.get(&id).cloned().ok_or(Errno::BADF)
    }

    pub fn close(&self, id: u64) {
        let closed = self.lock().by_id.remove(&id);
        // Closing can take long on a network file system: not under the lock.
        drop(closed);
    }

    /// Closes the handles that `gone` says.
    pub fn close_all(&self, gone: impl Fn(&Handle) -> bool) {
        self.lock().by_id.retain(|_, handle| !gone(handle));
    }
}
