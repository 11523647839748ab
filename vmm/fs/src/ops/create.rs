//! What makes new files. They belong to the guest's process that asked, and never come to be through a symbolic link: a
//! name that exists already is left alone.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use crate::file_system::{Call, FileSystem};
use crate::host;
use crate::nodes::{Node, ROOT};
use crate::ops::io::open_flags;
use crate::wire::Reply;

/// Permissions and the three bits above them.
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

impl FileSystem {
    /// A directory that the guest may change.
    pub(crate) fn writable_dir(&self, id: u64) -> Result<std::sync::Arc<Node>, Errno> {
        if id == ROOT {
            return Err(Errno::ROFS);
        }
        let node = self.nodes.get(id)?;
        node.writable()?.directory()?;
        Ok(node)
    }

    pub(crate) fn create(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (raw_flags, mode) = (call.body.u32()?, call.body.u32()?);
        let mask = call.body.u32()?;
        call.body.u32()?;
        let name = call.body.name()?;
        let flags = open_flags(raw_flags)?;
        let dir = self.writable_dir(call.header.node)?;
        let owner = (call.header.uid, call.header.gid);
        let new = flags.difference(OFlags::TRUNC) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = call.thread.create_as(owner, mask, || openat(&dir.file, name, new, permissions(mode)));
        match made {
            Ok(file) => self.put_created(&dir, file, flags, reply),
            // It came to be on the host since the guest looked.
            Err(Errno::EXIST) if !OFlags::from_bits_retain(raw_flags).contains(OFlags::EXCL) => {
                let (node, stat) = self.enter(&dir, name)?;
                let start = reply.len();
                self.put_entry((node.clone(), stat), reply)?;
                self.open_node(&node, flags, reply).inspect_err(|_| {
                    reply.truncate(start);
                    self.nodes.forget(node.id, 1);
                })
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn tmpfile(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (raw_flags, mode, mask) = (call.body.u32()?, call.body.u32()?, call.body.u32()?);
        let dir = self.writable_dir(call.header.node)?;
        let flags = open_flags(raw_flags)?;
        let excl = OFlags::from_bits_retain(raw_flags) & OFlags::EXCL;
        let new = flags.difference(OFlags::TRUNC) | excl | OFlags::TMPFILE | OFlags::CLOEXEC;
        let owner = (call.header.uid, call.header.gid);
        let file = call.thread.create_as(owner, mask, || openat(&dir.file, c".", new, permissions(mode)))?;
        self.put_created(&dir, file, flags, reply)
    }

    /// `struct fuse_entry_out` and `struct fuse_open_out` of a file that was just made.
    fn put_created(&self, dir: &Node, file: OwnedFd, flags: OFlags, reply: &mut Reply) -> Result<(), Errno> {
        let stands_for = host::reopen(&file, OFlags::PATH)?;
        let stat = host::stat(&file)?;
        let node = self.nodes.enter(&dir.entry, stands_for, &stat)?;
        let put = |reply: &mut Reply| {
            self.put_entry_out(node.id, &stat, reply)?;
            let handle = self.handles.open(&dir.entry, file, true)?;
            self.put_open_out(handle, false, flags, reply)
        };
        put(reply).inspect_err(|_| self.nodes.forget(node.id, 1))
    }

    pub(crate) fn mknod(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (mode, device, mask) = (call.body.u32()?, call.body.u32()?, call.body.u32()?);
        call.body.u32()?;
        let name = call.body.name()?;
        let kind = FileType::from_raw_mode(mode);
        if matches!(kind, FileType::Directory | FileType::Symlink | FileType::Unknown) {
            return Err(Errno::INVAL);
        }
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        let device = rustix::fs::makedev(major, minor);
        self.make(&call, mask, name, reply, |dir| mknodat(&dir.file, name, kind, permissions(mode), device))
    }

    pub(crate) fn mkdir(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (mode, mask) = (call.body.u32()?, call.body.u32()?);
        let name = call.body.name()?;
        self.make(&call, mask, name, reply, |dir| mkdirat(&dir.file, name, permissions(mode)))
    }

    pub(crate) fn symlink(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let name = call.body.name()?;
        let target = call.body.text()?;
        self.make(&call, 0, name, reply, |dir| symlinkat(target, &dir.file, name))
    }

    fn make(
        &self,
        call: &Call<'_>,
        mask: u32,
        name: &CStr,
        reply: &mut Reply,
        make: impl FnOnce(&Node) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let dir = self.writable_dir(call.header.node)?;
        call.thread.create_as((call.header.uid, call.header.gid), mask, || make(&dir))?;
        self.put_entry(self.enter(&dir, name)?, reply)
    }

    pub(crate) fn link(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let existing = call.body.u64()?;
        let name = call.body.name()?;
        let dir = self.writable_dir(call.header.node)?;
        let node = self.nodes.get(existing)?;
        // What is read-only in one entry must not get a name in another.
        if node.entry.id != dir.entry.id {
            return Err(Errno::XDEV);
        }
        linkat(CWD, host::link_name(&node.file), &dir.file, name, AtFlags::SYMLINK_FOLLOW)?;
        self.put_entry(self.enter(&dir, name)?, reply)
    }
}
