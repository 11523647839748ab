//! The serial console's output on the host: its end is kept in memory for error reports and in a file for whoever asks
//! later, and can be passed on to stdout.
//!
//! The guest may print without end: memory and file are bounded. Bytes reach the file line by line, since a system call
//! for each would multiply the cost of a guest's output.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dewar_devices::sink::Sink;
use dewar_vmm_api::SERIAL_KEPT;
use thiserror::Error;

/// A line longer than this is written in pieces.
const LINE_MAX: usize = 4096;
/// The file is cut back to the bytes kept when it has grown to this.
const FILE_MAX: usize = 2 * SERIAL_KEPT;

#[derive(Debug, Error)]
#[error("Could not create the serial log {}", path.display())]
pub struct SerialLogError {
    path: PathBuf,
    source: io::Error,
}

/// Where the serial port's bytes go. Clones share one log.
#[derive(Clone)]
pub struct SerialLog(Arc<Mutex<Log>>);

struct Log {
    kept: VecDeque<u8>,
    line: Vec<u8>,
    file: File,
    file_len: usize,
    stdout: bool,
}

impl SerialLog {
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, stdout: bool) -> Result<Self, SerialLogError> {
        let file = File::create(path).map_err(|source| SerialLogError { path: path.to_owned(), source })?;
        let log = Log { kept: VecDeque::new(), line: Vec::new(), file, file_len: 0, stdout };
        Ok(Self(Arc::new(Mutex::new(log))))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last bytes printed, at most [`SERIAL_KEPT`] and a line.
    #[must_use]
    pub fn kept(&self) -> Vec<u8> {
        let log = self.lock();
        log.kept.iter().chain(&log.line).copied().collect()
    }

    /// Writes what is pending and cuts the file to what is kept.
    pub fn finish(&self) {
        let mut log = self.lock();
        if !log.line.is_empty() {
            log.end_line();
        }
        if log.file_len > SERIAL_KEPT {
            log.rewrite();
        }
    }
}

impl Sink for SerialLog {
    fn write(&mut self, bytes: &[u8]) {
        let mut log = self.lock();
        bytes.iter().for_each(|byte| log.push_byte(*byte));
    }
}

impl Log {
    fn push_byte(&mut self, byte: u8) {
        self.line.push(byte);
        if byte == b'\n' || self.line.len() >= LINE_MAX {
            self.end_line();
        }
    }

    /// Failing to write is not the guest's fault and no reason to end it: what is kept in memory stays right.
    fn end_line(&mut self) {
        self.kept.extend(&self.line);
        let excess = self.kept.len().saturating_sub(SERIAL_KEPT);
        self.kept.drain(..excess);
        if self.stdout {
            let mut stdout = io::stdout().lock();
            drop(stdout.write_all(&self.line).and_then(|()| stdout.flush()));
        }
        if self.file_len + self.line.len() > FILE_MAX {
            self.rewrite();
        } else if self.file.write_all_at(&self.line, self.file_len as u64).is_ok() {
            self.file_len += self.line.len();
        }
        self.line.clear();
    }

    fn rewrite(&mut self) {
        let kept: &[u8] = self.kept.make_contiguous();
        drop(self.file.set_len(0));
        self.file_len = if self.file.write_all_at(kept, 0).is_ok() { kept.len() } else { 0 };
    }
}

/// The last `count` lines of console output, with everything that could move a terminal's cursor made harmless.
#[must_use]
pub fn last_lines(console: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(console);
    let lines: Vec<_> = text.lines().collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(count)..] {
        out.extend(line.chars().filter(|c| *c != '\r').map(|c| if c.is_control() && c != '\t' { '?' } else { c }));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> (SerialLog, tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("serial.log");
        (SerialLog::create(&path, false).unwrap(), dir, path)
    }

    #[test]
    fn lines_reach_the_file_when_they_end() {
        let (mut log, _dir, path) = log();
        log.write(b"one\ntw");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        assert_eq!(log.kept(), b"one\ntw");
        log.finish();
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntw");
    }

    #[test]
    fn memory_and_file_are_bounded_and_end_with_the_last_bytes() {
        let (mut log, _dir, path) = log();
        for n in 0..40_000 {
            log.write(format!("line {n}\n").as_bytes());
            assert!(log.lock().file_len <= FILE_MAX);
        }
        log.write(&[b'x'; 3 * LINE_MAX]);
        log.finish();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(written.len(), SERIAL_KEPT);
        assert_eq!(written, log.kept());
        assert!(written.ends_with(&[b'x'; 3 * LINE_MAX]));
    }

    #[test]
    fn reports_hold_the_last_lines_without_control_characters() {
        assert_eq!(last_lines(b"a\nb\r\n\x1b[2Jc\n", 2), "b\n?[2Jc\n");
        assert_eq!(last_lines(b"", 5), "");
    }
}
