//! Names, attributes, and what is known of whole file systems.

use std::sync::Arc;

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Statx, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid, chmodat, chownat,
    fstatfs, ftruncate, readlinkat, utimensat,
};
use rustix::io::Errno;

use crate::abi;
use crate::file_system::{Call, FileSystem};
use crate::host;
use crate::nodes::{Node, ROOT};
use crate::wire::{Reader, Reply};

/// Nanoseconds for which the guest may believe a name and a file's attributes. The host changes them behind its back
/// (`podman cp`, a volume of two containers), which must show in the very next command: no command begins and ends in so
/// short a time, but the many looks that one command takes at the same directories do.
pub(crate) const BELIEVED: u32 = 10_000_000;

/// Permissions of the made-up directory.
const ROOT_MODE: u32 = libc::S_IFDIR | 0o555;

impl FileSystem {
    pub(crate) fn lookup(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let name = call.body.name()?;
        let found = if call.header.node == ROOT {
            let entry = self.tree.find(name.to_bytes())?;
            let file = entry.top.try_clone().map_err(|_| Errno::NFILE)?;
            let stat = host::stat(&file)?;
            (self.nodes.enter(&entry, file, &stat)?, stat)
        } else {
            self.enter(&*self.nodes.get(call.header.node)?, name)?
        };
        self.put_entry(found, reply)
    }

    /// The file called `name` in a directory.
    pub(crate) fn enter(&self, dir: &Node, name: &std::ffi::CStr) -> Result<(Arc<Node>, Statx), Errno> {
        let file = host::lookup(&dir.directory()?.file, name)?;
        let stat = host::stat(&file)?;
        Ok((self.nodes.enter(&dir.entry, file, &stat)?, stat))
    }

    /// Tells the guest of a node; if there is no room for that, it is not told.
    pub(crate) fn put_entry(&self, (node, stat): (Arc<Node>, Statx), reply: &mut Reply) -> Result<(), Errno> {
        let put = self.put_entry_out(node.id, &stat, reply);
        if put.is_err() {
            self.nodes.forget(node.id, 1);
        }
        put
    }

    /// `struct fuse_entry_out`.
    pub(crate) fn put_entry_out(&self, node: u64, stat: &Statx, reply: &mut Reply) -> Result<(), Errno> {
        reply.u64(node)?;
        // Numbers are not given out again: no generations. Whole seconds of belief: none.
        reply.bytes(&[0; 24])?;
        reply.u32(BELIEVED)?;
        reply.u32(BELIEVED)?;
        self.put_attr(stat, reply)
    }

    fn put_attr(&self, stat: &Statx, reply: &mut Reply) -> Result<(), Errno> {
        reply.u64(self.inode_of(stat))?;
        reply.u64(stat.stx_size)?;
        reply.u64(stat.stx_blocks)?;
        for time in [stat.stx_atime, stat.stx_mtime, stat.stx_ctime] {
            reply.bytes(&time.tv_sec.to_le_bytes())?;
        }
        for time in [stat.stx_atime, stat.stx_mtime, stat.stx_ctime] {
            reply.u32(time.tv_nsec)?;
        }
        reply.u32(stat.stx_mode.into())?;
        reply.u32(stat.stx_nlink)?;
        reply.u32(stat.stx_uid)?;
        reply.u32(stat.stx_gid)?;
        reply.u32(kernel_device(stat.stx_rdev_major, stat.stx_rdev_minor))?;
        reply.u32(stat.stx_blksize)?;
        reply.u32(0)
    }

    fn put_attr_out(&self, stat: &Statx, reply: &mut Reply) -> Result<(), Errno> {
        reply.u64(0)?;
        reply.u32(BELIEVED)?;
        reply.u32(0)?;
        self.put_attr(stat, reply)
    }

    pub(crate) fn getattr(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let flags = call.body.u32()?;
        call.body.u32()?;
        let handle = call.body.u64()?;
        if call.header.node == ROOT {
            return put_root_attr_out(reply);
        }
        let stat = if flags & abi::GETATTR_FH != 0 {
            host::stat(&self.handles.get(handle)?.file)?
        } else {
            host::stat(&self.nodes.get(call.header.node)?.file)?
        };
        self.put_attr_out(&stat, reply)
    }

    pub(crate) fn setattr(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let change = Change::read(&mut call.body)?;
        if call.header.node == ROOT {
            return Err(Errno::ROFS);
        }
        let node = self.nodes.get(call.header.node)?;
        node.writable()?;
        let path = host::link_name(&node.file);
        if let Some((owner, group)) = change.owner() {
            let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
            chownat(&node.file, c"", owner, group, flags)?;
        }
        if change.has(abi::setattr::MODE) {
            chmodat(CWD, path.as_c_str(), Mode::from_raw_mode(change.mode & 0o7777), AtFlags::empty())?;
        }
        if change.has(abi::setattr::SIZE) {
            let truncate = || self.truncate(&node, &change);
            if change.has(abi::setattr::KILL_SUIDGID) { call.thread.without_set_id(truncate) } else { truncate() }?;
        }
        if let Some(times) = change.times() {
            utimensat(CWD, path.as_c_str(), &times, AtFlags::empty())?;
        }
        self.put_attr_out(&host::stat(&node.file)?, reply)
    }

    fn truncate(&self, node: &Node, change: &Change) -> Result<(), Errno> {
        if change.has(abi::setattr::FH) {
            return ftruncate(&self.handles.get(change.handle)?.file, change.size);
        }
        let file = host::reopen(&node.regular()?.file, OFlags::WRONLY)?;
        ftruncate(&file, change.size)
    }

    pub(crate) fn readlink(&self, call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        if call.header.node == ROOT {
            return Err(Errno::INVAL);
        }
        let node = self.nodes.get(call.header.node)?;
        let target = readlinkat(&node.file, c"", Vec::new())?;
        reply.bytes(target.to_bytes())
    }

    pub(crate) fn statfs(&self, call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        if call.header.node == ROOT {
            reply.bytes(&[0; 40])?;
            reply.u32(4096)?;
            reply.u32(255)?;
            reply.u32(4096)?;
            return reply.bytes(&[0; 28]);
        }
        let stat = fstatfs(&self.nodes.get(call.header.node)?.file)?;
        for number in [stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree] {
            reply.u64(number)?;
        }
        for number in [stat.f_bsize, stat.f_namelen, stat.f_frsize] {
            reply.u32(u32::try_from(number).unwrap_or(u32::MAX))?;
        }
        reply.bytes(&[0; 28])
    }
}

fn put_root_attr_out(reply: &mut Reply) -> Result<(), Errno> {
    reply.u64(0)?;
    reply.u32(BELIEVED)?;
    reply.u32(0)?;
    // Inode 1, nothing in it, from no time.
    reply.u64(ROOT)?;
    reply.bytes(&[0; 52])?;
    reply.u32(ROOT_MODE)?;
    reply.u32(2)?;
    reply.bytes(&[0; 12])?;
    reply.u32(4096)?;
    reply.u32(0)
}

/// A device number as kernels pass it to each other.
fn kernel_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major.wrapping_shl(8) & 0xf_ff00) | (minor & !0xff).wrapping_shl(12)
}

/// `struct fuse_setattr_in`.
struct Change {
    valid: u32,
    handle: u64,
    size: u64,
    atime: Timespec,
    mtime: Timespec,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Change {
    fn read(body: &mut Reader<'_>) -> Result<Self, Errno> {
        let valid = body.u32()?;
        body.u32()?;
        let (handle, size) = (body.u64()?, body.u64()?);
        // The owner of locks.
        body.u64()?;
        let seconds = [body.u64()?.cast_signed(), body.u64()?.cast_signed()];
        // The time of the change is the host's.
        body.u64()?;
        let nanoseconds = [body.u32()?, body.u32()?];
        body.u32()?;
        let mode = body.u32()?;
        body.u32()?;
        let (uid, gid) = (body.u32()?, body.u32()?);
        if nanoseconds.iter().any(|n| *n >= 1_000_000_000) {
            return Err(Errno::INVAL);
        }
        let [atime, mtime] = seconds;
        let [atime_nsec, mtime_nsec] = nanoseconds;
        let atime = Timespec { tv_sec: atime, tv_nsec: atime_nsec.into() };
        let mtime = Timespec { tv_sec: mtime, tv_nsec: mtime_nsec.into() };
        Ok(Self { valid, handle, size, atime, mtime, mode, uid, gid })
    }

    fn has(&self, what: u32) -> bool {
        self.valid & what != 0
    }

    fn owner(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        let owner = self.has(abi::setattr::UID).then_some(self.uid).filter(|uid| *uid != u32::MAX);
        let group = self.has(abi::setattr::GID).then_some(self.gid).filter(|gid| *gid != u32::MAX);
        let any = owner.is_some() || group.is_some();
        any.then(|| (owner.map(Uid::from_raw), group.map(Gid::from_raw)))
    }

    fn times(&self) -> Option<Timestamps> {
        let time = |set, now, given: Timespec| {
            let special = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
            if self.has(now) {
                special(UTIME_NOW)
            } else if self.has(set) {
                given
            } else {
                special(UTIME_OMIT)
            }
        };
        let any = abi::setattr::ATIME | abi::setattr::MTIME | abi::setattr::ATIME_NOW | abi::setattr::MTIME_NOW;
        self.has(any).then(|| Timestamps {
            last_access: time(abi::setattr::ATIME, abi::setattr::ATIME_NOW, self.atime),
            last_modification: time(abi::setattr::MTIME, abi::setattr::MTIME_NOW, self.mtime),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        assert_eq!(kernel_device(1, 3), 0x103);
        assert_eq!(kernel_device(0xabc, 0x1_2345), 0x123a_bc45);
    }
}
