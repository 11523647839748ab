//! A container's log: its output as records, bounded.
//!
//! A record is a stream number (1 output, 2 errors), the time as `u64` little-endian nanoseconds since 1970, a `u32`
//! little-endian length and the bytes as they came. Binary, because a gigabyte of output should not be escaped on its
//! way. When the file passes [`LOG_LIMIT`] it becomes `log.1` (replacing the one before) and a new one begins, so a
//! flood costs at most twice the limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes after which a new file begins.
pub const LOG_LIMIT: u64 = 16 << 20;
const HEADER: usize = 13;
const RECORD_LIMIT: usize = 1 << 20;

/// Which of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    Stdout,
    Stderr,
}

/// Appends records; shared by the two output pumps behind a mutex.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    limit: u64,
}

impl LogWriter {
    /// Opens or makes the log.
    ///
    /// # Errors
    /// Those of opening a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LOG_LIMIT)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, size, limit })
    }

    /// Appends one record.
    ///
    /// # Errors
    /// Those of writing; a full disk loses log, not output.
    pub fn write(&mut self, output: Output, time_ns: u64, bytes: &[u8]) -> io::Result<()> {
        if self.size >= self.limit {
            fs::rename(&self.path, self.path.with_extension("1"))?;
            *self = Self::with_limit(&self.path, self.limit)?;
        }
        let mut header = [0; HEADER];
        header[0] = if output == Output::Stdout { 1 } else { 2 };
        header[1..9].copy_from_slice(&time_ns.to_le_bytes());
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        header[9..].copy_from_slice(&length.to_le_bytes());
        let written = self.file.write_vectored(&[io::IoSlice::new(&header), io::IoSlice::new(bytes)])?;
        if written < HEADER {
            self.file.write_all(&header[written..])?;
        }
        self.file.write_all(&bytes[written.saturating_sub(HEADER).min(bytes.len())..])?;
        self.size += (HEADER + bytes.len()) as u64;
        Ok(())
    }
}

/// One piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub output: Output,
    pub time_ns: u64,
    pub bytes: Vec<u8>,
}

/// Reads the records of a log from its oldest kept one.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    current: Option<File>,
    /// Bytes of a record that is not whole yet.
    pending: Vec<u8>,
    in_old: bool,
}

impl LogReader {
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let old = File::open(path.with_extension("1")).ok();
        let in_old = old.is_some();
        Self { path: path.to_path_buf(), current: old, pending: Vec::new(), in_old }
    }

    /// The next whole record; `None` when there is none now. May be asked again after more was written.
    ///
    /// # Errors
    /// Those of reading, and `InvalidData` for a file that is no log.
    pub fn next_record(&mut self) -> io::Result<Option<LogRecord>> {
        loop {
            if let Some(record) = self.take_record()? {
                return Ok(Some(record));
            }
            if self.current.is_none() {
                match File::open(&self.path) {
                    Ok(file) => self.current = Some(file),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
            let Some(file) = &mut self.current else { return Ok(None) };
            let mut chunk = vec![0; 64 << 10];
            let n = file.read(&mut chunk)?;
            if n > 0 {
                self.pending.extend_from_slice(&chunk[..n]);
            } else if self.in_old || self.rotated()? {
                self.in_old = false;
                self.current = None;
                self.pending.clear();
            } else {
                return Ok(None);
            }
        }
    }

    /// The file being read is no longer the one at the path: what is left of it was read, so the next one follows.
    fn rotated(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let (Some(file), Ok(there)) = (&self.current, fs::metadata(&self.path)) else { return Ok(false) };
        Ok(file.metadata()?.ino() != there.ino())
    }

    fn take_record(&mut self) -> io::Result<Option<LogRecord>> {
        let Some(header) = self.pending.first_chunk::<HEADER>() else { return Ok(None) };
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the log is damaged");
        let output = match header[0] {
            1 => Output::Stdout,
            2 => Output::Stderr,
            _ => return Err(invalid()),
        };
        let mut time = [0; 8];
        time.copy_from_slice(&header[1..9]);
        let mut length = [0; 4];
        length.copy_from_slice(&header[9..]);
        let length = u32::from_le_bytes(length) as usize;
        if length > RECORD_LIMIT {
            return Err(invalid());
        }
        let Some(bytes) = self.pending.get(HEADER..HEADER + length) else { return Ok(None) };
        let record = LogRecord { output, time_ns: u64::from_le_bytes(time), bytes: bytes.to_vec() };
        self.pending.drain(..HEADER + length);
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_across_a_rotation_and_while_it_grows() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let mut writer = LogWriter::with_limit(&path, 100).expect("opens");
        let mut reader = LogReader::open(&path);
        let mut seen = Vec::new();
        for i in 0..40u64 {
            let output = if i % 2 == 0 { Output::Stdout } else { Output::Stderr };
            writer.write(output, i, format!("line {i}\n").as_bytes()).expect("writes");
            while let Some(record) = reader.next_record().expect("reads") {
                seen.push(record);
            }
        }
        assert_eq!(seen.len(), 40);
        for (i, record) in (0u64..).zip(&seen) {
            assert_eq!(record.time_ns, i);
            assert_eq!(record.bytes, format!("line {i}\n").as_bytes());
        }
        let kept =
            fs::metadata(&path).expect("there").len() + fs::metadata(path.with_extension("1")).expect("there").len();
        assert!(kept < 300, "two files of the limit at most, not {kept}");
    }

    #[test]
    fn a_damaged_log_is_an_error_and_not_a_huge_allocation() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        fs::write(&path, [1; 64]).expect("writes");
        assert!(LogReader::open(&path).next_record().is_err());
    }
}
