//! File contents on their way from the stream to the image's data area.
//!
//! Long runs of zeros become holes, whether the archive calls the file sparse or not. A file without holes is one
//! contiguous run (which reads fastest); one with holes gets a map of chunks. Chunks are single blocks unless the file is so
//! huge that its map would be: then they grow, and holes shrink to whole chunks.

use std::io::Read;

use super::super::tarball::{Entry, Reader};
use super::format::{BLOCK, BLOCK_SIZE, INODE_SIZE};
use super::output::Output;
use super::tree::{Contents, Run};
use super::{LayerError, Problem, xattr};

/// Shorter runs of zeros (in blocks) are written out: a map costs more than they do.
const MIN_HOLE: u64 = 16;

/// Longer tails get a block of their own.
const MAX_INLINE: usize = 2048;

/// Entries that a chunk map may have: 256 KiB of them.
const MAX_CHUNKS: u64 = 1 << 16;

/// As large as ext4 lets a file be.
const MAX_FILE: u64 = 16 << 40;

/// Bytes read at once; a multiple of the block size.
const BUFFER: usize = 64 << 10;

/// Stores file contents; counts what it leaves in memory as inline tails.
pub(super) struct Files {
    inline_left: usize,
    buffer: Vec<u8>,
}

impl Files {
    pub(super) fn new() -> Self {
        // Beyond this, tails cost a block of the disk rather than memory.
        Self { inline_left: 64 << 20, buffer: vec![0; BUFFER] }
    }

    /// Stores the current entry of the stream.
    pub(super) fn store<R: Read>(
        &mut self,
        out: &mut Output,
        reader: &mut Reader<R>,
        entry: &Entry,
        xattrs: &[u8],
    ) -> Result<Result<Contents, Problem>, LayerError> {
        if entry.size > MAX_FILE {
            return Ok(Err(Problem::TooLarge));
        }
        let used = INODE_SIZE.saturating_add(xattr::size(xattrs));
        let room = usize::try_from(BLOCK.saturating_sub(used)).unwrap_or(0).min(MAX_INLINE).min(self.inline_left);
        let mut file = FileWriter::new(out, entry.size)?;
        let whole = [super::super::tarball::Extent { offset: 0, length: entry.size }];
        for extent in entry.extents.as_deref().unwrap_or(&whole) {
            file.zeros_until(extent.offset)?;
            let mut left = extent.length;
            while left > 0 {
                let want = usize::try_from(left).unwrap_or(BUFFER).min(file.until_block(BUFFER));
                let Some(part) = self.buffer.get_mut(..want) else { break };
                let got = reader.read(part)?;
                if got == 0 {
                    return Err(super::TarError::Truncated.into());
                }
                file.bytes(part.get(..got).unwrap_or_default())?;
                left = left.saturating_sub(got as u64);
            }
        }
        file.zeros_until(entry.size)?;
        let contents = file.finish(room)?;
        if let Contents::Flat { tail, .. } = &contents {
            self.inline_left = self.inline_left.saturating_sub(tail.len());
        }
        Ok(Ok(contents))
    }
}

struct FileWriter<'a> {
    out: &'a mut Output,
    first_block: u32,
    chunk_bits: u8,
    /// Blocks that were written or became holes.
    blocks: u64,
    /// Blocks of zeros after those.
    zeros: u64,
    /// The block after those, incomplete.
    partial: Vec<u8>,
    runs: Vec<Run>,
    holes: bool,
}

impl<'a> FileWriter<'a> {
    fn new(out: &'a mut Output, size: u64) -> Result<Self, LayerError> {
        let chunks = size.div_ceil(BLOCK).div_ceil(MAX_CHUNKS).max(1).next_power_of_two();
        let chunk_bits = u8::try_from(chunks.trailing_zeros()).unwrap_or(31);
        let first_block = out.block()?;
        Ok(Self { out, first_block, chunk_bits, blocks: 0, zeros: 0, partial: Vec::new(), runs: vec![], holes: false })
    }

    fn position(&self) -> u64 {
        self.blocks.saturating_add(self.zeros).saturating_mul(BLOCK).saturating_add(self.partial.len() as u64)
    }

    /// How much to read so that what follows starts at a block.
    fn until_block(&self, buffer: usize) -> usize {
        if self.partial.is_empty() { buffer } else { BLOCK_SIZE.saturating_sub(self.partial.len()) }
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        if !self.partial.is_empty() || bytes.len() < BLOCK_SIZE {
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK_SIZE.saturating_sub(self.partial.len())));
            self.partial.extend_from_slice(now);
            if self.partial.len() == BLOCK_SIZE {
                let block = std::mem::take(&mut self.partial);
                self.block(&block)?;
            }
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK_SIZE>();
        for block in blocks {
            self.block(block)?;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    fn zeros_until(&mut self, position: u64) -> Result<(), LayerError> {
        let mut amount = position.saturating_sub(self.position());
        if !self.partial.is_empty() && amount > 0 {
            let fill = amount.min(BLOCK.saturating_sub(self.partial.len() as u64));
            self.bytes(&vec![0; usize::try_from(fill).unwrap_or(0)])?;
            amount = amount.saturating_sub(fill);
        }
        self.zeros = self.zeros.saturating_add(amount / BLOCK);
        self.partial.resize(self.partial.len().saturating_add(usize::try_from(amount % BLOCK).unwrap_or(0)), 0);
        Ok(())
    }

    fn block(&mut self, block: &[u8]) -> Result<(), LayerError> {
        if block.iter().all(|b| *b == 0) {
            self.zeros = self.zeros.saturating_add(1);
            return Ok(());
        }
        self.settle_zeros(false)?;
        self.out.append(block)?;
        self.ran(1)
    }

    /// Decides what the pending zeros become.
    fn settle_zeros(&mut self, at_end: bool) -> Result<(), LayerError> {
        let end = self.blocks.saturating_add(self.zeros);
        let chunk = 1u64 << self.chunk_bits;
        let hole_start = self.blocks.next_multiple_of(chunk);
        let hole_end = if at_end { end } else { end & !(chunk - 1) };
        self.zeros = 0;
        if hole_end.saturating_sub(hole_start) < MIN_HOLE {
            return self.write_zeros(end);
        }
        self.write_zeros(hole_start)?;
        self.holes = true;
        self.blocks = hole_end;
        self.write_zeros(end)
    }

    fn write_zeros(&mut self, until: u64) -> Result<(), LayerError> {
        let count = until.saturating_sub(self.blocks);
        self.out.skip(count.saturating_mul(BLOCK))?;
        self.ran(count)
    }

    /// Notes blocks that were just appended.
    fn ran(&mut self, count: u64) -> Result<(), LayerError> {
        if count == 0 {
            return Ok(());
        }
        let too_long = LayerError::Limit { what: "bytes of content", limit: MAX_FILE };
        let Ok(blocks) = u32::try_from(count) else { return Err(too_long) };
        let after = self.out.block()?;
        let logical = self.blocks;
        self.blocks = logical.saturating_add(count);
        match self.runs.last_mut() {
            Some(run) if run.logical.saturating_add(u64::from(run.blocks)) == logical => {
                run.blocks = run.blocks.checked_add(blocks).ok_or(too_long)?;
            }
            _ => self.runs.push(Run { logical, physical: after.saturating_sub(blocks), blocks }),
        }
        Ok(())
    }

    fn finish(mut self, room: usize) -> Result<Contents, LayerError> {
        let mut tail = std::mem::take(&mut self.partial);
        if self.zeros > 0 && tail.iter().all(|b| *b == 0) {
            self.zeros = self.zeros.saturating_add(u64::from(!tail.is_empty()));
            tail.clear();
            self.settle_zeros(true)?;
        } else {
            self.settle_zeros(false)?;
        }
        if self.holes || tail.len() > room {
            if !tail.is_empty() {
                tail.resize(BLOCK_SIZE, 0);
                self.out.append(&tail)?;
                self.ran(1)?;
            }
            tail = Vec::new();
        }
        Ok(if self.holes {
            Contents::Chunked { chunk_bits: self.chunk_bits, runs: self.runs.into() }
        } else {
            Contents::Flat { first_block: self.first_block, tail: tail.into() }
        })
    }
}
