//! Host files one behind the other, as one range of bytes. Knows guest memory as slices, and no virtio.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::{fd::AsRawFd, unix::fs::FileExt},
};

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use vm_memory::VolatileSlice;

/// Files are padded with zeros to a multiple of so many bytes.
pub const BLOCK_SIZE: u64 = 4096;

/// Slices that one system call takes (`IOV_MAX`).
const MAX_IOVECS: usize = 1024;

/// Bytes written at once when the file system cannot zero a range by itself.
const ZERO_CHUNK: usize = 64 << 10;

static ZEROS: [u8; ZERO_CHUNK] = [0; ZERO_CHUNK];

/// Why files could not become a disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("A disk needs at least one file")]
    NoFile,
    #[error("A writable disk has one file, not {count}")]
    ManyWritable { count: usize },
    #[error("The file of a writable disk has {size} bytes, which is not a multiple of {BLOCK_SIZE}")]
    UnevenWritable { size: u64 },
    #[error("The files are too large for one disk")]
    TooLarge,
    #[error("Asking for the size of file {index} failed")]
    Size { index: usize, source: io::Error },
}

struct Part {
    file: File,
    /// Where the file starts on the disk.
    start: u64,
    /// Bytes of the file.
    len: u64,
    /// Where the next file starts on the disk.
    end: u64,
}

/// The files.
pub struct Disk {
    /// In the order of their place on the disk, without gaps.
    parts: Vec<Part>,
    size: u64,
    read_only: bool,
}

/// One stretch of a transfer, all of it in one file or all of it padding.
enum Piece<'d> {
    File { file: &'d File, offset: u64, len: u64 },
    Padding { len: u64 },
}

impl Disk {
    pub fn new(files: Vec<File>, read_only: bool) -> Result<Self, DiskError> {
        if files.is_empty() {
            return Err(DiskError::NoFile);
        }
        if !read_only && files.len() != 1 {
            return Err(DiskError::ManyWritable { count: files.len() });
        }
        let mut parts = Vec::with_capacity(files.len());
        let mut start = 0u64;
        for (index, mut file) in files.into_iter().enumerate() {
            // Unlike the metadata, seeking also knows the size of a block device.
            let len = file.seek(SeekFrom::End(0)).map_err(|source| DiskError::Size { index, source })?;
            if !read_only && !len.is_multiple_of(BLOCK_SIZE) {
                return Err(DiskError::UnevenWritable { size: len });
            }
            let padded = len.checked_next_multiple_of(BLOCK_SIZE).ok_or(DiskError::TooLarge)?;
            let end = start.checked_add(padded).ok_or(DiskError::TooLarge)?;
            parts.push(Part { file, start, len, end });
            start = end;
        }
        // File offsets are signed.
        if i64::try_from(start).is_err() {
            return Err(DiskError::TooLarge);
        }
        Ok(Self { parts, size: start, read_only })
    }

    /// Bytes, with padding.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The stretch at `offset`, at most `len` bytes of it.
    fn piece(&self, offset: u64, len: u64) -> io::Result<Piece<'_>> {
        let index = self.parts.partition_point(|part| part.end <= offset);
        let part = self.parts.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
        let within = offset.saturating_sub(part.start);
        match part.len.checked_sub(within) {
            Some(rest) if rest > 0 => Ok(Piece::File { file: &part.file, offset: within, len: rest.min(len) }),
            _ => Ok(Piece::Padding { len: part.end.saturating_sub(offset).min(len) }),
        }
    }

    /// Fills `slices` with what is at `offset`.
    pub fn read(&self, offset: u64, slices: Vec<VolatileSlice<'_>>) -> io::Result<()> {
        let mut cursor = Cursor::new(slices);
        let mut offset = offset;
        while cursor.left() > 0 {
            let moved = match self.piece(offset, cursor.left())? {
                Piece::Padding { len } => {
                    cursor.fill_zeros(len)?;
                    len
                }
                Piece::File { file, offset, len } => cursor.transfer(file, offset, len, Direction::ToMemory)?,
            };
            offset = offset.saturating_add(moved);
        }
        Ok(())
    }

    /// Writes what is in `slices` to `offset`.
    pub fn write(&self, offset: u64, slices: Vec<VolatileSlice<'_>>) -> io::Result<()> {
        let mut cursor = Cursor::new(slices);
        let mut offset = offset;
        while cursor.left() > 0 {
            let (file, within, len) = self.writable_piece(offset, cursor.left())?;
            let moved = cursor.transfer(file, within, len, Direction::ToFile)?;
            offset = offset.saturating_add(moved);
        }
        Ok(())
    }

    /// Writes and all before them survive a crash of the host once this returns.
    pub fn flush(&self) -> io::Result<()> {
        self.parts.iter().try_for_each(|part| Ok(fdatasync(&part.file)?))
    }

    /// Gives the blocks of a range back to the host, if it can take them. What is read there afterwards is undefined.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (file, offset, len) = self.whole_piece(offset, len)?;
        match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            // A discard is a hint.
            Err(error) if unsupported(error) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Makes a range read as zeros. With `unmap`, preferably by giving its blocks back to the host.
    pub fn zero(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let (file, offset, len) = self.whole_piece(offset, len)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
        for mode in if unmap { [punch, zero] } else { [zero, punch] } {
            match fallocate(file, mode, offset, len) {
                Err(error) if unsupported(error) => {}
                result => return Ok(result?),
            }
        }
        write_zeros(file, offset, len)
    }

    fn writable_piece(&self, offset: u64, len: u64) -> io::Result<(&File, u64, u64)> {
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        match self.piece(offset, len)? {
            Piece::File { file, offset, len } => Ok((file, offset, len)),
            Piece::Padding { .. } => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// As a writable disk is one file, a range on it is one piece, or beyond the end.
    fn whole_piece(&self, offset: u64, len: u64) -> io::Result<(&File, u64, u64)> {
        let piece = self.writable_piece(offset, len)?;
        if piece.2 == len { Ok(piece) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn unsupported(error: rustix::io::Errno) -> bool {
    error == rustix::io::Errno::OPNOTSUPP || error == rustix::io::Errno::NOSYS || error == rustix::io::Errno::NODEV
}

fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let (mut offset, mut left) = (offset, len);
    while left > 0 {
        let count = usize::try_from(left).map_or(ZERO_CHUNK, |left| left.min(ZERO_CHUNK));
        file.write_all_at(ZEROS.get(..count).unwrap_or_default(), offset)?;
        let count = u64::try_from(count).map_err(io::Error::other)?;
        offset = offset.saturating_add(count);
        left = left.saturating_sub(count);
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Direction {
    ToMemory,
    ToFile,
}

/// Guest memory that is being filled or emptied from its front.
struct Cursor<'m> {
    slices: std::vec::IntoIter<VolatileSlice<'m>>,
    /// The rest of the slice that is under way.
    first: Option<VolatileSlice<'m>>,
    left: u64,
}

impl<'m> Cursor<'m> {
    fn new(slices: Vec<VolatileSlice<'m>>) -> Self {
        let left = slices.iter().fold(0u64, |sum, slice| sum.saturating_add(slice.len() as u64));
        Self { slices: slices.into_iter(), first: None, left }
    }

    /// Bytes.
    fn left(&self) -> u64 {
        self.left
    }

    /// What is left, in slices, at most `len` bytes and `MAX_IOVECS` slices.
    fn window(&self, len: u64) -> io::Result<Vec<VolatileSlice<'m>>> {
        let mut left = usize::try_from(len).unwrap_or(usize::MAX);
        let mut window = Vec::new();
        for slice in self.first.iter().chain(self.slices.as_slice()) {
            if left == 0 || window.len() == MAX_IOVECS {
                break;
            }
            let part = slice.subslice(0, slice.len().min(left)).map_err(io::Error::other)?;
            left = left.saturating_sub(part.len());
            window.push(part);
        }
        Ok(window)
    }

    fn advance(&mut self, count: u64) -> io::Result<()> {
        self.left = self.left.saturating_sub(count);
        let mut count = usize::try_from(count).map_err(io::Error::other)?;
        while count > 0 {
            let slice = self.first.take().or_else(|| self.slices.next()).ok_or(io::ErrorKind::UnexpectedEof)?;
            if slice.len() > count {
                self.first = Some(slice.offset(count).map_err(io::Error::other)?);
            }
            count = count.saturating_sub(slice.len());
        }
        Ok(())
    }

    fn fill_zeros(&mut self, len: u64) -> io::Result<()> {
        let mut left = len.min(self.left);
        while left > 0 {
            let window = self.window(left)?;
            let mut done = 0u64;
            for slice in window {
                for start in (0..slice.len()).step_by(ZERO_CHUNK) {
                    slice.offset(start).map_err(io::Error::other)?.copy_from(&ZEROS);
                }
                done = done.saturating_add(slice.len() as u64);
            }
            self.advance(done)?;
            left = left.saturating_sub(done);
        }
        Ok(())
    }

    /// Moves up to `len` bytes between memory and `offset` of `file`, and says how many.
    fn transfer(&mut self, file: &File, offset: u64, len: u64, direction: Direction) -> io::Result<u64> {
        let window = self.window(len)?;
        let guards: Vec<_> = window.iter().map(VolatileSlice::ptr_guard_mut).collect();
        let iovecs: Vec<_> =
            guards.iter().map(|guard| libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() }).collect();
        let count = libc::c_int::try_from(iovecs.len()).map_err(io::Error::other)?;
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let moved = match direction {
            // SAFETY: every iovec is a slice of guest memory, which stays mapped while the guards live, and which no
            // Rust reference points to; the kernel may write there as the guest may.
            Direction::ToMemory => unsafe { libc::preadv(file.as_raw_fd(), iovecs.as_ptr(), count, offset) },
            // SAFETY: as above; the kernel only reads from there.
            Direction::ToFile => unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count, offset) },
        };
        match u64::try_from(moved) {
            // The file has become shorter, or a write made no progress: either would go on for ever.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => self.advance(moved).map(|()| moved),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn read(disk: &Disk, offset: u64, lens: &[usize]) -> io::Result<Vec<u8>> {
        let mut buffers: Vec<Vec<u8>> = lens.iter().map(|len| vec![0xee; *len]).collect();
        disk.read(offset, buffers.iter_mut().map(|buffer| VolatileSlice::from(buffer.as_mut_slice())).collect())?;
        Ok(buffers.concat())
    }

    fn write(disk: &Disk, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let mut buffers: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        disk.write(offset, buffers.iter_mut().map(|buffer| VolatileSlice::from(buffer.as_mut_slice())).collect())
    }

    #[test]
    fn files_are_padded_and_joined() {
        let disk = Disk::new(vec![file(&[1; 5000]), file(&[]), file(&[2; 4096]), file(&[3; 1])], true).unwrap();
        assert_eq!(disk.size(), 4 * 4096);
        let all = read(&disk, 0, &[4096, 1, 8000, 4287]).unwrap();
        let expected = [vec![1; 5000], vec![0; 3192], vec![2; 4096], vec![3; 1], vec![0; 4095]].concat();
        assert_eq!(all, expected);
        assert_eq!(read(&disk, 4999, &[2, 1]).unwrap(), [1, 0, 0]);
        assert!(read(&disk, 4 * 4096 - 1, &[2]).is_err());
    }

    #[test]
    fn more_slices_than_a_call_takes_are_moved() {
        let bytes: Vec<u8> = (0..8192u32).map(|byte| byte.to_le_bytes()[0] ^ byte.to_le_bytes()[1]).collect();
        let disk = Disk::new(vec![file(&bytes)], false).unwrap();
        assert_eq!(read(&disk, 0, &[3; 2730]).unwrap(), bytes[..8190]);
    }

    #[test]
    fn what_is_written_is_read() {
        let disk = Disk::new(vec![file(&[7; 8192])], false).unwrap();
        write(&disk, 4095, &[b"ab", b"", b"cde"]).unwrap();
        disk.flush().unwrap();
        assert_eq!(read(&disk, 4094, &[7]).unwrap(), b"\x07abcde\x07");
        assert!(write(&disk, 8191, &[b"ab"]).is_err());
    }

    #[test]
    fn zeroed_ranges_read_as_zeros_and_the_size_stays() {
        for unmap in [false, true] {
            let disk = Disk::new(vec![file(&[7; 16384])], false).unwrap();
            disk.zero(512, 9000, unmap).unwrap();
            assert_eq!(read(&disk, 0, &[16384]).unwrap(), [vec![7; 512], vec![0; 9000], vec![7; 6872]].concat());
            assert!(disk.zero(16000, 1000, unmap).is_err());
            disk.discard(12288, 4096).unwrap();
            assert_eq!(disk.size(), 16384);
            assert_eq!(read(&disk, 16383, &[1]).unwrap().len(), 1);
        }
    }

    #[test]
    fn zeros_are_written_where_the_file_system_has_no_better_way() {
        let file = file(&[7; 200_000]);
        write_zeros(&file, 1000, 150_000).unwrap();
        let mut bytes = vec![0; 200_000];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [vec![7; 1000], vec![0; 150_000], vec![7; 49_000]].concat());
    }

    #[test]
    fn a_read_only_disk_cannot_be_changed() {
        let disk = Disk::new(vec![file(&[7; 4096])], true).unwrap();
        assert!(write(&disk, 0, &[b"x"]).is_err());
        assert!(disk.zero(0, 512, true).is_err());
        assert!(disk.discard(0, 512).is_err());
        assert_eq!(read(&disk, 0, &[1]).unwrap(), [7]);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_not_an_endless_loop() {
        let backing = file(&[7; 8192]);
        let disk = Disk::new(vec![backing.try_clone().unwrap()], true).unwrap();
        backing.set_len(4096).unwrap();
        assert_eq!(read(&disk, 4096, &[512]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn disks_that_cannot_be_are_refused() {
        assert!(matches!(Disk::new(vec![], true), Err(DiskError::NoFile)));
        let two = vec![file(&[0; 4096]), file(&[0; 4096])];
        assert!(matches!(Disk::new(two, false), Err(DiskError::ManyWritable { count: 2 })));
        assert!(matches!(Disk::new(vec![file(&[0; 100])], false), Err(DiskError::UnevenWritable { size: 100 })));
    }
}
