//! Reading directories.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::PoisonError;

use rustix::fs::{FileType, OFlags, RawDir, SeekFrom, seek};
use rustix::io::Errno;

use crate::file_system::{Call, FileSystem};
use crate::host;
use crate::nodes::{Node, ROOT};
use crate::wire::Reply;

/// Bytes of the host's directory entries that are read for one request.
const MAX_BATCH: usize = 32 << 10;

/// Bytes of a reply to a request for entries.
const MAX_LISTING: usize = 64 << 10;

/// Bytes of `struct fuse_entry_out`.
const ENTRY_OUT: usize = 128;

/// Bytes of `struct fuse_dirent` without the name.
const DIRENT: usize = 24;

/// One name of a directory.
struct Listed<'a> {
    inode: u64,
    /// Where the next one is.
    next: u64,
    kind: FileType,
    name: &'a [u8],
}

impl Listed<'_> {
    fn put(&self, reply: &mut Reply) -> Result<(), Errno> {
        reply.u64(self.inode)?;
        reply.u64(self.next)?;
        reply.u32(u32::try_from(self.name.len()).map_err(|_| Errno::IO)?)?;
        reply.u32(type_number(self.kind))?;
        reply.bytes(self.name)?;
        let padding = [0; 8];
        reply.bytes(padding.get(..padding_after(self.name.len())).unwrap_or_default())
    }

    fn size(&self) -> usize {
        DIRENT.saturating_add(self.name.len()).saturating_add(padding_after(self.name.len()))
    }
}

/// Entries lie at multiples of eight bytes.
fn padding_after(len: usize) -> usize {
    len.next_multiple_of(8).saturating_sub(len)
}

/// `DT_*`
fn type_number(kind: FileType) -> u32 {
    (kind.as_raw_mode() & libc::S_IFMT) >> 12
}

impl FileSystem {
    pub(crate) fn opendir(&self, call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let handle = if call.header.node == ROOT {
            0
        } else {
            let node = self.nodes.get(call.header.node)?;
            let file = host::reopen(&node.directory()?.file, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.handles.open(&node.entry, file, false)?
        };
        self.put_open_out(handle, false, OFlags::RDONLY, reply)
    }

    pub(crate) fn readdir(&self, mut call: Call<'_>, reply: &mut Reply, plus: bool) -> Result<(), Errno> {
        let (handle, offset, size) = (call.body.u64()?, call.body.u64()?, call.body.u32()?);
        let size = usize::try_from(size).map_err(|_| Errno::INVAL)?.min(MAX_LISTING).min(reply.room());
        let end = reply.len().saturating_add(size);
        if call.header.node == ROOT {
            return self.list_root(offset, end, plus, reply);
        }
        let node = self.nodes.get(call.header.node)?;
        let handle = self.handles.get(handle)?;
        let _reading = handle.reading.lock().unwrap_or_else(PoisonError::into_inner);
        seek(&handle.file, SeekFrom::Start(offset))?;
        let device = host::stat(&handle.file)?;
        let device = (device.stx_dev_major, device.stx_dev_minor);
        let mut buffer = [MaybeUninit::uninit(); MAX_BATCH];
        // Not more than can be told, but enough for the longest name.
        let batch = buffer.get_mut(..size.clamp(512, MAX_BATCH)).ok_or(Errno::IO)?;
        let mut entries = RawDir::new(&handle.file, batch);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let listed = Listed {
                inode: self.inode_number(device, entry.ino()),
                next: entry.next_entry_cookie(),
                kind: entry.file_type(),
                name: entry.file_name().to_bytes(),
            };
            if !self.put_listed(&node, &listed, entry.file_name(), (end, plus), reply)? {
                break;
            }
            if entries.is_buffer_empty() {
                break;
            }
        }
        Ok(())
    }

    /// False when there is no room for it.
    fn put_listed(
        &self,
        dir: &Node,
        listed: &Listed<'_>,
        name: &CStr,
        (end, plus): (usize, bool),
        reply: &mut Reply,
    ) -> Result<bool, Errno> {
        let size = if plus { listed.size().saturating_add(ENTRY_OUT) } else { listed.size() };
        if reply.len().saturating_add(size) > end {
            return Ok(false);
        }
        if plus {
            let dots = matches!(listed.name, b"." | b"..");
            match if dots { Err(Errno::NOENT) } else { self.enter(dir, name) } {
                Ok(found) => self.put_entry(found, reply)?,
                // The guest asks for it by name if it wants to know.
                Err(_) => reply.bytes(&[0; ENTRY_OUT])?,
            }
        }
        listed.put(reply)?;
        Ok(true)
    }

    fn list_root(&self, offset: u64, end: usize, plus: bool, reply: &mut Reply) -> Result<(), Errno> {
        for entry in self.tree.after(offset) {
            let stat = host::stat(&entry.top)?;
            let listed = Listed {
                inode: self.inode_of(&stat),
                next: entry.id,
                kind: host::file_type(&stat),
                name: entry.name.as_bytes(),
            };
            let size = if plus { listed.size().saturating_add(ENTRY_OUT) } else { listed.size() };
            if reply.len().saturating_add(size) > end {
                break;
            }
            if plus {
                reply.bytes(&[0; ENTRY_OUT])?;
            }
            listed.put(reply)?;
        }
        Ok(())
    }
}
