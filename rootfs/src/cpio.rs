//! Writer of the "newc" cpio format, the one that the kernel unpacks into its first root file system.
//!
//! Format: `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel. Owners are root, times are zero,
//! inode numbers count up, so the output depends on the calls alone.

use std::io::{self, Write};

const MAGIC: &[u8; 6] = b"070701";
const TRAILER: &str = "TRAILER!!!";
const TYPE_DIR: u32 = 0o040_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_CHAR: u32 = 0o020_000;
const TYPE_MASK: u32 = 0o170_000;
/// Entries and their data start on multiples of this.
const ALIGN: u64 = 4;

/// An archive under construction. Only [`Archive::finish`] makes it complete.
pub struct Archive<W> {
    out: W,
    written: u64,
    next_inode: u32,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, written: 0, next_inode: 1 }
    }

    /// Adds a directory with permission bits `mode`. Its parent must have been added before.
    pub fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, TYPE_DIR | mode, (0, 0), &[])
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entry(path, TYPE_FILE | mode, (0, 0), data)
    }

    /// Adds a character device with the device number `(major, minor)`.
    pub fn char_device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> io::Result<()> {
        self.entry(path, TYPE_CHAR | mode, number, &[])
    }

    /// Writes the trailer and hands the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.next_inode = 0;
        self.entry(TRAILER, 0, (0, 0), &[])?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, number: (u32, u32), data: &[u8]) -> io::Result<()> {
        let too_big = || io::Error::new(io::ErrorKind::FileTooLarge, format!("{path} does not fit a cpio archive"));
        let size = u32::try_from(data.len()).map_err(|_| too_big())?;
        let name_size = u32::try_from(path.len() + 1).map_err(|_| too_big())?;
        let links = if mode & TYPE_MASK == TYPE_DIR { 2 } else { 1 };
        let fields =
            [self.next_inode, mode, 0, 0, links, 0, size, 0, 0, number.0, number.1, name_size, /* checksum */ 0];
        self.next_inode += 1;
        self.put(MAGIC)?;
        for field in fields {
            self.put(format!("{field:08x}").as_bytes())?;
        }
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(data)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(ALIGN) - self.written;
        self.put(&[0; ALIGN as usize][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(entry: &[u8], index: usize) -> u32 {
        let at = MAGIC.len() + index * 8;
        u32::from_str_radix(std::str::from_utf8(&entry[at..at + 8]).unwrap(), 16).unwrap()
    }

    #[test]
    fn entries_are_aligned_and_closed_by_a_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.dir("dev", 0o755).unwrap();
        archive.file("abcde", 0o644, b"12345").unwrap();
        let bytes = archive.finish().unwrap();

        assert_eq!(bytes.len() % 4, 0);
        let starts: Vec<usize> = (0..bytes.len()).step_by(4).filter(|&at| bytes[at..].starts_with(MAGIC)).collect();
        assert_eq!(starts.len(), 3);
        let file = &bytes[starts[1]..];
        assert_eq!(field(file, 1), 0o100_644);
        assert_eq!(field(file, 6), 5);
        assert_eq!(field(file, 11), 6);
        assert_eq!(&file[110..116], b"abcde\0");
        assert_eq!(&file[116..121], b"12345");
        assert!(bytes[starts[2]..][110..].starts_with(b"TRAILER!!!\0"));
    }

    #[test]
    fn a_device_carries_its_number() {
        let mut archive = Archive::new(Vec::new());
        archive.char_device("dev/console", 0o600, (5, 1)).unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(field(&bytes, 1), 0o020_600);
        assert_eq!((field(&bytes, 9), field(&bytes, 10)), (5, 1));
        assert_eq!(field(&bytes, 4), 1);
    }
}
