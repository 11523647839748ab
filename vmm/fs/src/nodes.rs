//! The files that the guest's kernel knows, each with a descriptor that stands for it whatever it is called by now.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::host;
use crate::tree::Entry;

/// The made-up directory's number.
pub const ROOT: u64 = 1;

/// A file of an entry.
#[derive(Debug)]
pub struct Node {
    pub id: u64,
    pub entry: Arc<Entry>,
    /// Of kind `O_PATH`.
    pub file: OwnedFd,
    pub kind: FileType,
    key: Key,
    /// What the file was like when it was last opened.
    opened: Mutex<Option<Stamp>>,
}

/// What tells files apart. The same file in two entries, or behind two mounts, is two nodes, since it may be writable in one
/// of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    entry: u64,
    device: (u32, u32),
    inode: u64,
    mount: u64,
}

/// Changes when the file's bytes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub size: u64,
    pub changed: (i64, u32),
    pub modified: (i64, u32),
}

impl Node {
    /// # Errors
    /// `EROFS` when the guest may not write here.
    pub fn writable(&self) -> Result<&Self, Errno> {
        if self.entry.is_read_only() { Err(Errno::ROFS) } else { Ok(self) }
    }

    /// # Errors
    /// `EISDIR` or `ENXIO` for anything but a regular file: devices, pipes and sockets are opened in the guest.
    pub fn regular(&self) -> Result<&Self, Errno> {
        match self.kind {
            FileType::RegularFile => Ok(self),
            FileType::Directory => Err(Errno::ISDIR),
            _ => Err(Errno::NXIO),
        }
    }

    /// # Errors
    /// `ENOTDIR` for anything but a directory.
    pub fn directory(&self) -> Result<&Self, Errno> {
        if self.kind == FileType::Directory { Ok(self) } else { Err(Errno::NOTDIR) }
    }

    /// Remembers `stamp` for the next opening, and says whether the last one was the same.
    pub fn replace_stamp(&self, stamp: Option<Stamp>) -> bool {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let same = stamp.is_some() && *opened == stamp;
        *opened = stamp;
        same
    }
}

/// All of them.
#[derive(Debug)]
pub struct Nodes {
    table: Mutex<Table>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Table {
    /// With how often the guest has been told of each.
    by_id: HashMap<u64, (Arc<Node>, u64)>,
    by_key: HashMap<Key, u64>,
    last: u64,
}

impl Nodes {
    /// There will be at most `limit` at once.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { table: Mutex::new(Table { last: ROOT, ..Table::default() }), limit }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Errors
    /// `ESTALE` for a number that is not given out.
    pub fn get(&self, id: u64) -> Result<Arc<Node>, Errno> {
        self.lock().by_id.get(&id).map(|(node, _)| node.clone()).ok_or(Errno::STALE)
    }

    /// The node of a file that the guest is about to be told of; [`Nodes::forget`] is the opposite.
    ///
    /// # Errors
    /// `ENFILE` when the guest knows too many files, `ESTALE` when the entry is gone.
    pub fn enter(&self, entry: &Arc<Entry>, file: OwnedFd, stat: &Statx) -> Result<Arc<Node>, Errno> {
        let key = Key {
            entry: entry.id,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            mount: stat.stx_mnt_id,
        };
        let mut table = self.lock();
        if entry.is_removed() {
            return Err(Errno::STALE);
        }
        let known = table.by_key.get(&key).copied();
        if let Some((node, count)) = known.and_then(|id| table.by_id.get_mut(&id)) {
            *count = count.saturating_add(1);
            return Ok(node.clone());
        }
        if table.by_id.len() >= self.limit {
            return Err(Errno::NFILE);
        }
        let id = table.last.checked_add(1).ok_or(Errno::NFILE)?;
        table.last = id;
        let kind = host::file_type(stat);
        let node = Arc::new(Node { id, entry: entry.clone(), file, kind, key, opened: Mutex::new(None) });
        table.by_id.insert(id, (node.clone(), 1));
        table.by_key.insert(key, id);
        Ok(node)
    }

    /// The guest has forgotten `count` times that it was told of this node.
    pub fn forget(&self, id: u64, count: u64) {
        let mut table = self.lock();
        let Some((_, known)) = table.by_id.get_mut(&id) else { return };
        *known = known.saturating_sub(count);
        if *known == 0
            && let Some((node, _)) = table.by_id.remove(&id)
        {
            table.by_key.remove(&node.key);
        }
    }

    /// Drops the nodes that `gone` says.
    pub fn drop_all(&self, gone: impl Fn(&Node) -> bool) {
        let mut table = self.lock();
        table.by_id.retain(|_, (node, _)| !gone(node));
        let Table { by_id, by_key, .. } = &mut *table;
        by_key.retain(|_, id| by_id.contains_key(id));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().by_id.len()
    }
}
