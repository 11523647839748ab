//! Sparse files: GNU's old format (a map in the header and in blocks after it), and PAX 0.0, 0.1 and 1.0.

use std::io::Read;

use super::fields::{Header, number};
use super::pax::decimal;
use super::{BLOCK, Reader, TarError};

/// The most data regions that one file may have.
const MAX_EXTENTS: usize = 1 << 20;

/// A region of a sparse file that has data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// The `GNU.sparse.*` records of one entry.
#[derive(Default)]
pub(super) struct PaxSparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    major: u64,
    numbers: Vec<u64>,
}

impl PaxSparse {
    pub(super) fn record(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarError> {
        match name {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal(value)?),
            b"major" => self.major = decimal(value)?,
            b"offset" | b"numbytes" => self.numbers.push(decimal(value)?),
            b"map" => {
                for part in value.split(|b| *b == b',').filter(|p| !p.is_empty()) {
                    self.numbers.push(decimal(part)?);
                }
            }
            _ => {}
        }
        if self.numbers.len() > 2 * MAX_EXTENTS {
            return Err(TarError::Malformed { what: "a sparse file has too many regions" });
        }
        Ok(())
    }

    /// Whether the map is at the start of the entry's data (format 1.0).
    pub(super) fn needs_data(&self) -> bool {
        self.major == 1
    }

    pub(super) fn map(&self) -> Result<Vec<Extent>, TarError> {
        pairs(&self.numbers)
    }
}

fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, TarError> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(TarError::Malformed { what: "a sparse file's map is incomplete" });
    }
    Ok(pairs.iter().map(|[offset, length]| Extent { offset: *offset, length: *length }).collect())
}

/// Checks that the regions ascend, stay within the file and account for all stored bytes.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0u64;
    let mut total = 0u64;
    for extent in extents {
        let next = extent.offset.checked_add(extent.length);
        match next {
            Some(next) if extent.offset >= end && next <= size => end = next,
            _ => return Err(TarError::Malformed { what: "a sparse file's regions overlap or lie outside of it" }),
        }
        total = total.saturating_add(extent.length);
    }
    if total == stored {
        Ok(())
    } else {
        Err(TarError::Malformed { what: "a sparse file's map does not fit its data" })
    }
}

impl<R: Read> Reader<R> {
    /// The map and the real size of an entry of type `S`.
    pub(super) fn old_sparse(&mut self, header: &Header) -> Result<(Vec<Extent>, u64), TarError> {
        let mut numbers = Vec::new();
        push_regions(&mut numbers, header.field(386, 4 * 24))?;
        let mut extended = header.field(482, 1) != [0];
        while extended {
            let block = Header::new(self.block()?.ok_or(TarError::Truncated)?);
            push_regions(&mut numbers, block.field(0, 21 * 24))?;
            extended = block.field(504, 1) != [0];
        }
        Ok((pairs(&numbers)?, number(header.field(483, 12))?))
    }

    /// The map of format 1.0: decimal numbers on lines of their own, padded to a whole block.
    pub(super) fn sparse_map_in_data(&mut self) -> Result<Vec<Extent>, TarError> {
        const BAD: TarError = TarError::Malformed { what: "a sparse file's map cannot be parsed" };
        let mut wanted = None;
        let mut numbers = Vec::new();
        let mut line = Vec::new();
        while wanted.is_none_or(|count| numbers.len() < count) {
            let mut block = [0; BLOCK as usize];
            if self.read(&mut block)? < block.len() {
                return Err(TarError::Malformed { what: "a sparse file's map is longer than its data" });
            }
            for byte in block {
                if byte != b'\n' {
                    line.push(byte);
                    continue;
                }
                if wanted.is_some_and(|count| numbers.len() >= count) {
                    break;
                }
                let value = decimal(&std::mem::take(&mut line))?;
                match wanted {
                    None => {
                        let count = usize::try_from(value).ok().filter(|c| *c <= MAX_EXTENTS).ok_or(BAD)?;
                        wanted = Some(count * 2);
                    }
                    Some(_) => numbers.push(value),
                }
            }
            if line.len() > 2 * BLOCK as usize {
                return Err(BAD);
            }
        }
        pairs(&numbers)
    }
}

/// Adds the used ones of an array of (offset, length) fields of 12 bytes each.
fn push_regions(numbers: &mut Vec<u64>, fields: &[u8]) -> Result<(), TarError> {
    for region in fields.as_chunks::<24>().0 {
        let (offset, length) = region.split_at(12);
        if region.first() == Some(&0) || length.first() == Some(&0) {
            continue;
        }
        numbers.push(number(offset)?);
        numbers.push(number(length)?);
    }
    if numbers.len() > 2 * MAX_EXTENTS {
        return Err(TarError::Malformed { what: "a sparse file has too many regions" });
    }
    Ok(())
}
