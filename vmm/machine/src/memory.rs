//! Guest memory: maps what [`RamLayout`] describes into this process.
//!
//! Mappings are never undone: the process holds one machine and its end is theirs. By default a range is anonymous
//! memory aligned to huge pages, since a nested fault for each 4 KiB page costs a multiple of everything else in a start;
//! shared memory is one memfd holding the ranges one behind the other.

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

use thiserror::Error;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::layout::{RamLayout, RamRange};

const HUGE_PAGE: usize = 2 << 20;
const PIECE: u64 = 256 << 10;

#[derive(Debug, Error)]
pub enum MemoryError {
    #[error("Could not reserve {mib} MiB of guest memory")]
    Map {
        mib: u64,
        #[source]
        source: io::Error,
    },
    #[error("Could not create a file of {mib} MiB for shared guest memory")]
    SharedFile {
        mib: u64,
        #[source]
        source: io::Error,
    },
    #[error("Could not describe guest memory at {start:#x}")]
    Region { start: u64 },
}

/// Maps guest memory.
///
/// # Errors
/// When the host refuses the memory.
pub fn map(layout: &RamLayout, shared: bool) -> Result<GuestMemoryMmap, MemoryError> {
    let regions = if shared { map_shared(layout)? } else { map_private(layout)? };
    GuestMemoryMmap::from_regions(regions).map_err(|_| MemoryError::Region { start: 0 })
}

fn region(range: RamRange, mapping: MmapRegion) -> Result<GuestRegionMmap, MemoryError> {
    GuestRegionMmap::new(mapping, GuestAddress(range.start)).ok_or(MemoryError::Region { start: range.start })
}

fn size_of(range: RamRange) -> Result<usize, MemoryError> {
    usize::try_from(range.len).map_err(|_| MemoryError::Region { start: range.start })
}

fn map_private(layout: &RamLayout) -> Result<Vec<GuestRegionMmap>, MemoryError> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    layout
        .ranges()
        .map(|range| {
            let len = size_of(range)?;
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
            let raw = unsafe { libc::mmap(std::ptr::null_mut(), len + HUGE_PAGE, prot, flags, -1, 0) };
            if raw == libc::MAP_FAILED {
                return Err(MemoryError::Map { mib: range.len >> 20, source: io::Error::last_os_error() });
            }
            let aligned = raw.cast::<u8>().wrapping_add(raw.align_offset(HUGE_PAGE));
            advise_huge(aligned, len);
            // SAFETY: `aligned..aligned + len` lies in the mapping just made, which nothing else uses or unmaps.
            let mapping = unsafe { MmapRegion::build_raw(aligned, len, prot, flags) };
            region(range, mapping.map_err(|_| MemoryError::Region { start: range.start })?)
        })
        .collect()
}

fn map_shared(layout: &RamLayout) -> Result<Vec<GuestRegionMmap>, MemoryError> {
    let total: u64 = layout.ranges().map(|r| r.len).sum();
    let failed = || MemoryError::SharedFile { mib: total >> 20, source: io::Error::last_os_error() };
    // SAFETY: the name is a NUL-terminated literal.
    let fd = unsafe { libc::memfd_create(c"dewar-guest".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(failed());
    }
    // SAFETY: `fd` was just opened and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(total).map_err(|source| MemoryError::SharedFile { mib: total >> 20, source })?;
    let file = std::sync::Arc::new(file);

    let mut offset = 0;
    layout
        .ranges()
        .map(|range| {
            let len = size_of(range)?;
            let mapping = MmapRegion::from_file(FileOffset::from_arc(std::sync::Arc::clone(&file), offset), len)
                .map_err(|source| MemoryError::Map { mib: range.len >> 20, source: io::Error::other(source) })?;
            advise_huge(mapping.as_ptr(), len);
            offset += range.len;
            region(range, mapping)
        })
        .collect()
}

/// Reads from `file`, where it stands, until `range` is full.
///
/// In pieces with the processor offered in between: the set-up of KVM, which runs at the same time, mostly waits for
/// kernel threads, and on a host with one free processor those would wait for the whole file to be read.
///
/// # Errors
/// When the file ends early or cannot be read.
pub fn read_file(memory: &GuestMemoryMmap, range: RamRange, file: &mut &File) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end() {
        let piece = PIECE.min(range.end() - at);
        memory.read_exact_volatile_from(GuestAddress(at), file, piece as usize).map_err(io::Error::other)?;
        at += piece;
        std::thread::yield_now();
    }
    Ok(())
}

/// A refusal is no error: the guest is only slower.
fn advise_huge(start: *mut u8, len: usize) {
    // SAFETY: the range was just mapped by the caller; the advice changes no content.
    unsafe { libc::madvise(start.cast(), len, libc::MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn private_memory_is_aligned_to_huge_pages() {
        let memory = map(&RamLayout::new(16).unwrap(), false).unwrap();
        let host = memory.get_host_address(GuestAddress(0)).unwrap();
        assert_eq!(host.align_offset(HUGE_PAGE), 0);
        assert_eq!(memory.last_addr().0, (16 << 20) - 1);
    }

    #[test]
    fn shared_memory_is_one_file_with_the_ranges_one_behind_the_other() {
        let memory = map(&RamLayout::new(3073).unwrap(), true).unwrap();
        let offsets: Vec<_> = memory.iter().map(|r| r.file_offset().unwrap().start()).collect();
        assert_eq!(offsets, [0, 3 << 30]);
        memory.write_obj(7u32, GuestAddress(1 << 32)).unwrap();
        assert!(memory.write_obj(7u32, GuestAddress(3 << 30)).is_err(), "the hole is no memory");
    }
}
