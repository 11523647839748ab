//! Open files: bytes, holes, and making them last.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{
    FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fstatfs, fsync, seek, syncfs,
};
use rustix::io::{Errno, pread, pwrite};

use dewar_vmm_api::fs_link::MAX_DATA;

use crate::abi;
use crate::file_system::{Call, FileSystem};
use crate::handles::Handle;
use crate::host;
use crate::nodes::{Node, ROOT, Stamp};
use crate::wire::Reply;

/// Seconds after which a program's time of change is certain to differ from that of its next change.
const SETTLED: i64 = 2;
/// The same for other files: what a process of the host has mapped it can change without a change of the time, until the
/// kernel has written it back.
const SETTLED_IF_MAPPED: i64 = 60;
/// Filesystems that write nothing back: `TMPFS_MAGIC` and `RAMFS_MAGIC`.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// What the guest may ask for when it opens a file. Not `O_DIRECT`: the buffers here are not aligned for it.
const GUEST_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::WRONLY)
    .union(OFlags::RDWR)
    .union(OFlags::APPEND)
    .union(OFlags::TRUNC)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::NOATIME);

/// What of the guest's flags is passed on, which says whether the file can be written.
pub(crate) fn open_flags(raw: u32) -> Result<OFlags, Errno> {
    let flags = OFlags::from_bits_retain(raw) & GUEST_FLAGS;
    if flags & OFlags::ACCMODE == OFlags::ACCMODE { Err(Errno::INVAL) } else { Ok(flags) }
}

fn writes(flags: OFlags) -> bool {
    flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC)
}

impl FileSystem {
    pub(crate) fn open(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let flags = open_flags(call.body.u32()?)?;
        let kill = call.body.u32()? & abi::OPEN_KILL_SUIDGID != 0;
        if call.header.node == ROOT {
            return Err(Errno::ISDIR);
        }
        let node = self.nodes.get(call.header.node)?;
        if kill && flags.contains(OFlags::TRUNC) {
            return call.thread.without_set_id(|| self.open_node(&node, flags, reply));
        }
        self.open_node(&node, flags, reply)
    }

    /// Opens a file that exists, and writes `struct fuse_open_out`.
    pub(crate) fn open_node(&self, node: &Node, flags: OFlags, reply: &mut Reply) -> Result<(), Errno> {
        if writes(flags) {
            node.writable()?;
        }
        let file = host::reopen(&node.regular()?.file, flags)?;
        let keep = node.replace_stamp(settled_stamp(&file)?);
        let handle = self.handles.open(&node.entry, file, writes(flags))?;
        self.put_open_out(handle, keep, flags, reply)
    }

    pub(crate) fn put_open_out(&self, handle: u64, keep: bool, flags: OFlags, reply: &mut Reply) -> Result<(), Errno> {
        let mut answer = if keep { abi::FOPEN_KEEP_CACHE } else { 0 };
        if !writes(flags) {
            answer |= abi::FOPEN_NOFLUSH;
        }
        let put = reply.u64(handle).and_then(|()| reply.u32(answer)).and_then(|()| reply.u32(0));
        if put.is_err() {
            self.handles.close(handle);
        }
        put
    }

    pub(crate) fn read(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (handle, offset) = (call.body.u64()?, call.body.u64()?);
        let len = usize::try_from(call.body.u32()?.min(MAX_DATA)).map_err(|_| Errno::INVAL)?;
        let handle = self.handles.get(handle)?;
        reply.fill(len, |space| {
            let mut filled = 0usize;
            // The guest takes a short read for the end of the file.
            while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                let at = offset.checked_add(u64::try_from(filled).unwrap_or(u64::MAX)).ok_or(Errno::INVAL)?;
                match pread(&handle.file, rest, at) {
                    Ok(0) => break,
                    Ok(count) => filled = filled.saturating_add(count),
                    Err(Errno::INTR) => {}
                    Err(error) if filled == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(filled)
        })
    }

    pub(crate) fn write(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (handle, offset) = (call.body.u64()?, call.body.u64()?);
        let len = usize::try_from(call.body.u32()?).map_err(|_| Errno::INVAL)?;
        let kill = call.body.u32()? & abi::WRITE_KILL_SUIDGID != 0;
        // The owner of locks, and the flags that the file was opened with.
        call.body.bytes(16)?;
        let data = call.body.bytes(len)?;
        let handle = self.handles.get(handle)?;
        let write = || write_all(&handle, data, offset);
        let written = if kill { call.thread.without_set_id(write) } else { write() }?;
        reply.u32(u32::try_from(written).map_err(|_| Errno::IO)?)?;
        reply.u32(0)
    }

    /// A file is being closed: what the host says only then (quota and space of network file systems) is asked for.
    pub(crate) fn flush(&self, mut call: Call<'_>) -> Result<(), Errno> {
        let handle = self.handles.get(call.body.u64()?)?;
        close(handle.file.try_clone().map_err(|_| Errno::NFILE)?)
    }

    pub(crate) fn release(&self, mut call: Call<'_>) -> Result<(), Errno> {
        self.handles.close(call.body.u64()?);
        Ok(())
    }

    pub(crate) fn fsync(&self, mut call: Call<'_>) -> Result<(), Errno> {
        let (handle, flags) = (call.body.u64()?, call.body.u32()?);
        if call.header.node == ROOT {
            return Ok(());
        }
        let handle = self.handles.get(handle)?;
        if flags & abi::FSYNC_FDATASYNC != 0 { fdatasync(&handle.file) } else { fsync(&handle.file) }
    }

    /// `sync` in the guest: every file system that it can have written to.
    pub(crate) fn syncfs(&self, _call: Call<'_>) -> Result<(), Errno> {
        let mut done = HashSet::new();
        for entry in self.tree.after(0).iter().filter(|entry| !entry.is_read_only()) {
            let stat = host::stat(&entry.top)?;
            let kind = host::file_type(&stat);
            let known = !done.insert((stat.stx_dev_major, stat.stx_dev_minor));
            if known || !(kind.is_dir() || kind.is_file()) {
                continue;
            }
            syncfs(host::reopen(&entry.top, OFlags::RDONLY)?)?;
        }
        Ok(())
    }

    pub(crate) fn fallocate(&self, mut call: Call<'_>) -> Result<(), Errno> {
        let (handle, offset, len) = (call.body.u64()?, call.body.u64()?, call.body.u64()?);
        let known = FallocateFlags::KEEP_SIZE
            | FallocateFlags::PUNCH_HOLE
            | FallocateFlags::ZERO_RANGE
            | FallocateFlags::COLLAPSE_RANGE
            | FallocateFlags::INSERT_RANGE
            | FallocateFlags::UNSHARE_RANGE;
        let mode = FallocateFlags::from_bits_retain(call.body.u32()?);
        if !known.contains(mode) {
            return Err(Errno::OPNOTSUPP);
        }
        fallocate(&self.handles.get(handle)?.file, mode, offset, len)
    }

    pub(crate) fn lseek(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (handle, offset, whence) = (call.body.u64()?, call.body.u64()?, call.body.u32()?);
        let handle = self.handles.get(handle)?;
        let target = match whence.cast_signed() {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            // The others need nobody's help.
            _ => return Err(Errno::INVAL),
        };
        // Files are read and written at offsets: the position that this moves is nobody's.
        reply.u64(seek(&handle.file, target)?)
    }

    pub(crate) fn copy_file_range(&self, mut call: Call<'_>, reply: &mut Reply) -> Result<(), Errno> {
        let (from, mut from_offset) = (call.body.u64()?, call.body.u64()?);
        call.body.u64()?;
        let (to, mut to_offset) = (call.body.u64()?, call.body.u64()?);
        let (len, flags) = (call.body.u64()?, call.body.u64()?);
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        // The reply's number has 32 bits, and the guest comes again for the rest.
        let len = usize::try_from(len.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        let copied = copy_file_range(&from.file, Some(&mut from_offset), &to.file, Some(&mut to_offset), len)?;
        reply.u32(u32::try_from(copied).map_err(|_| Errno::IO)?)?;
        reply.u32(0)
    }
}

/// Closes a descriptor, and says what closing it brought to light.
fn close(file: std::os::fd::OwnedFd) -> Result<(), Errno> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor is ours, and given up here.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

fn write_all(handle: &Handle, data: &[u8], offset: u64) -> Result<usize, Errno> {
    let mut written = 0usize;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(u64::try_from(written).unwrap_or(u64::MAX)).ok_or(Errno::FBIG)?;
        match pwrite(&handle.file, rest, at) {
            Ok(0) => break,
            Ok(count) => written = written.saturating_add(count),
            Err(Errno::INTR) => {}
            Err(error) if written == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(written)
}

/// Seconds after which a file's time of change stands for its contents: never where a mapping can change them in silence.
fn settles_after(mode: u32, file_system: impl FnOnce() -> Result<i64, Errno>) -> Result<Option<i64>, Errno> {
    if mode & 0o111 != 0 {
        return Ok(Some(SETTLED));
    }
    Ok((!IN_MEMORY.contains(&file_system()?)).then_some(SETTLED_IF_MAPPED))
}

/// What tells the file's present contents from later ones; nothing while it has changed so lately that the next change could
/// look the same.
fn settled_stamp(file: &std::os::fd::OwnedFd) -> Result<Option<Stamp>, Errno> {
    let stat = host::stat(file)?;
    let changed = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|now| i64::try_from(now.as_secs()).ok());
    let age = now.and_then(|now| now.checked_sub(changed.0));
    let settles = settles_after(u32::from(stat.stx_mode), || Ok(fstatfs(file)?.f_type))?;
    let settled = age.zip(settles).is_some_and(|(age, settles)| age >= settles);
    let modified = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec);
    Ok(settled.then_some(Stamp { size: stat.stx_size, changed, modified }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_mapped_and_written_settles_late_or_never() {
        const EXT4: i64 = 0xef53;
        let settles = |mode, file_system| settles_after(mode, || Ok(file_system));
        assert_eq!(settles(0o100_755, EXT4), Ok(Some(SETTLED)));
        assert_eq!(settles(0o100_644, EXT4), Ok(Some(SETTLED_IF_MAPPED)));
        assert_eq!(settles(0o100_600, IN_MEMORY[0]), Ok(None));
        assert_eq!(settles(0o100_700, IN_MEMORY[0]), Ok(Some(SETTLED)));
    }
}
