//! Where consoles write to. The guest decides how much it prints, so every sink is bounded.

#[cfg(test)]
use std::sync::{Arc, Mutex};
use std::{fs::File, io, os::unix::fs::FileExt};

/// Takes what the guest prints, never blocks for long, and never fails visibly: output that cannot be kept is lost.
pub trait Sink: Send {
    fn write(&mut self, bytes: &[u8]);
}

/// A file that holds the last bytes printed: at least `kept` of them once so many were printed, and fewer than twice as
/// many. It can be read while it is being written.
#[derive(Debug)]
pub struct TailFile {
    file: File,
    kept: usize,
    /// Bytes in the file.
    len: usize,
    /// The file's last bytes, at most `kept`.
    tail: Vec<u8>,
}

impl TailFile {
    /// Empties `file`, which must be readable and writable by its descriptor.
    pub fn new(file: File, kept: usize) -> io::Result<Self> {
        file.set_len(0)?;
        Ok(Self { file, kept: kept.max(1), len: 0, tail: Vec::new() })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len.saturating_add(bytes.len());
        if len < self.kept.saturating_mul(2) {
            self.file.write_all_at(bytes, u64::try_from(self.len).map_err(io::Error::other)?)?;
            self.len = len;
        } else {
            self.file.write_all_at(&self.tail, 0)?;
            self.file.set_len(u64::try_from(self.tail.len()).map_err(io::Error::other)?)?;
            self.len = self.tail.len();
        }
        Ok(())
    }
}

impl Sink for TailFile {
    fn write(&mut self, bytes: &[u8]) {
        keep_tail(&mut self.tail, bytes, self.kept);
        // The disk may be full; the machine goes on without its log.
        drop(self.append(bytes));
    }
}

/// The last bytes printed, in memory, for tests. Clones share one tail.
#[cfg(test)]
#[derive(Debug, Clone)]
pub struct TailBuffer {
    kept: usize,
    tail: Arc<Mutex<Vec<u8>>>,
}

#[cfg(test)]
impl TailBuffer {
    #[must_use]
    pub fn new(kept: usize) -> Self {
        Self { kept, tail: Arc::default() }
    }

    /// At most `kept` bytes.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.tail.lock().unwrap().clone()
    }
}

#[cfg(test)]
impl Sink for TailBuffer {
    fn write(&mut self, bytes: &[u8]) {
        keep_tail(&mut self.tail.lock().unwrap(), bytes, self.kept);
    }
}

/// Appends `bytes` to `tail` and removes what exceeds `kept` from its front.
fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8], kept: usize) {
    let bytes = bytes.get(bytes.len().saturating_sub(kept)..).unwrap_or_default();
    let surplus = tail.len().saturating_add(bytes.len()).saturating_sub(kept).min(tail.len());
    tail.drain(..surplus);
    tail.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_buffer_keeps_the_last_bytes() {
        let mut buffer = TailBuffer::new(4);
        for (bytes, kept) in [("ab", "ab"), ("cde", "bcde"), ("", "bcde"), ("0123456", "3456")] {
            buffer.write(bytes.as_bytes());
            assert_eq!(buffer.contents(), kept.as_bytes());
        }
    }

    #[test]
    fn a_file_always_ends_with_the_last_bytes_and_stays_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = TailFile::new(File::create(&path).unwrap(), 10).unwrap();
        let mut printed = Vec::new();
        for round in 0..100u8 {
            let bytes = vec![round; usize::from(round % 7)];
            file.write(&bytes);
            printed.extend_from_slice(&bytes);
            let mut kept = Vec::new();
            File::open(&path).unwrap().read_to_end(&mut kept).unwrap();
            assert!(kept.len() < 20 && kept.len() >= printed.len().min(10));
            assert!(printed.ends_with(&kept));
        }
    }
}
