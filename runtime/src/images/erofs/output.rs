//! The image file: appended to, with holes of its own where the content is zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::LayerError;
use super::format::BLOCK;

const BUFFER: usize = 1 << 20;

/// Addresses are 32 bits of blocks, the last of which means a hole.
const MAX_LENGTH: u64 = (u32::MAX as u64 - 1) * BLOCK;

pub(super) struct Output {
    file: File,
    path: PathBuf,
    flushed: u64,
    buffer: Vec<u8>,
}

impl Output {
    /// Leaves room for block 0.
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        Self { file, path, flushed: BLOCK, buffer: Vec::with_capacity(BUFFER) }
    }

    pub(super) fn position(&self) -> u64 {
        self.flushed.saturating_add(self.buffer.len() as u64)
    }

    /// The block that starts at the current position.
    pub(super) fn block(&self) -> Result<u32, LayerError> {
        let position = self.position();
        if position > MAX_LENGTH {
            return Err(LayerError::Limit { what: "bytes of content", limit: MAX_LENGTH });
        }
        u32::try_from(position.div_ceil(BLOCK))
            .map_err(|_| LayerError::Limit { what: "bytes of content", limit: MAX_LENGTH })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Appends zeros: few of them as they are, many as a hole in the file.
    pub(super) fn skip(&mut self, amount: u64) -> Result<(), LayerError> {
        if amount < BLOCK {
            let length = self.buffer.len().saturating_add(usize::try_from(amount).unwrap_or(0));
            self.buffer.resize(length, 0);
            return Ok(());
        }
        self.flush()?;
        self.flushed = self.flushed.saturating_add(amount);
        Ok(())
    }

    /// Pads to a whole block.
    pub(super) fn align(&mut self) -> Result<(), LayerError> {
        self.skip(self.position().wrapping_neg() % BLOCK)
    }

    /// Pads, writes block 0, and gives the file's length once everything is on the disk.
    pub(super) fn finish(mut self, block_0: &[u8]) -> Result<u64, LayerError> {
        self.align()?;
        self.flush()?;
        let outcome = self.file.set_len(self.flushed);
        outcome.and_then(|()| self.file.write_all_at(block_0, 0)).map_err(|e| self.failed(e))?;
        self.file.sync_all().map_err(|e| self.failed(e))?;
        Ok(self.flushed)
    }

    fn flush(&mut self) -> Result<(), LayerError> {
        self.file.write_all_at(&self.buffer, self.flushed).map_err(|e| self.failed(e))?;
        self.flushed = self.position();
        self.buffer.clear();
        Ok(())
    }

    fn failed(&self, source: io::Error) -> LayerError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LayerError::NoSpace { path, source },
            _ => LayerError::Write { path, source },
        }
    }
}
