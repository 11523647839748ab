//! The guest's kernel without its padding.
//!
//! The linker script aligns parts of a kernel's text and data to 2 MiB and fills the gaps with `int3` or zeroes: two
//! fifths of what the program headers name. Each start would copy them into the guest's memory, for nothing: the guest
//! frees most of these pages before its first process. Only the program headers change here. What they no longer name
//! is zero in memory, as the ELF format has it for the part of a segment that is not in the file.

use std::io::{self, Error, ErrorKind, Write};
use std::ops::Range;

/// Where an ELF64 header holds the table's place, an entry's size and the number of entries.
const TABLE_AT: usize = 32;
const ENTRY_SIZE_AT: usize = 54;
const COUNT_AT: usize = 56;
const ENTRY: usize = 56;
const PT_LOAD: u64 = 1;
/// Fields of a program header.
const OFFSET: usize = 8;
const VIRTUAL: usize = 16;
const PHYSICAL: usize = 24;
const FILE_SIZE: usize = 32;
const MEMORY_SIZE: usize = 40;

const PAGE: usize = 4096;
/// Shorter padding is copied: a program header and a system call more would cost as much.
const SHORTEST: usize = 64 << 10;
/// What the linker puts between functions.
const INT3: u8 = 0xcc;

/// Writes the ELF executable `elf` with program headers that leave out long padding.
///
/// The last page of a run of `int3` stays, so that a stray jump into the gap still ends there and not in what follows.
pub fn write_without_padding(elf: &[u8], mut out: impl Write) -> io::Result<()> {
    let strange = || Error::new(ErrorKind::InvalidData, "the kernel is not an ELF executable of 64 bits");
    if !elf.starts_with(b"\x7fELF\x02\x01") || number(elf, ENTRY_SIZE_AT, 2) != Some(ENTRY) {
        return Err(strange());
    }
    let old = number(elf, TABLE_AT, 8).ok_or_else(strange)?;
    let count = number(elf, COUNT_AT, 2).ok_or_else(strange)?;
    let mut table = Vec::new();
    for index in 0..count {
        let at = old.checked_add(index * ENTRY).ok_or_else(strange)?;
        let entry = elf.get(at..).and_then(|rest| rest.first_chunk::<ENTRY>()).ok_or_else(strange)?;
        split(elf, entry, &mut table).ok_or_else(strange)?;
    }
    let place = elf.len().next_multiple_of(8);
    let count = u16::try_from(table.len() / ENTRY).map_err(|_| strange())?;
    let mut head = *elf.first_chunk::<64>().ok_or_else(strange)?;
    put(&mut head, TABLE_AT, place);
    head[COUNT_AT..COUNT_AT + 2].copy_from_slice(&count.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(&elf[head.len()..])?;
    out.write_all(&vec![0; place - elf.len()])?;
    out.write_all(&table)
}

/// Adds what stands for the program header `entry` to `table`: one header for each part of a segment between padding.
fn split(elf: &[u8], entry: &[u8; ENTRY], table: &mut Vec<u8>) -> Option<()> {
    if number(entry, 0, 4)? as u64 != PT_LOAD {
        table.extend(entry);
        return Some(());
    }
    let [start, in_file, in_memory] =
        [number(entry, OFFSET, 8)?, number(entry, FILE_SIZE, 8)?, number(entry, MEMORY_SIZE, 8)?];
    let bytes = elf.get(start..start.checked_add(in_file)?)?;
    let parts = parts(bytes);
    for (index, part) in parts.iter().enumerate() {
        let end = parts.get(index + 1).map_or(in_memory, |next| next.start);
        let mut entry = *entry;
        for field in [OFFSET, VIRTUAL, PHYSICAL] {
            let moved = number(&entry, field, 8)?.checked_add(part.start)?;
            put(&mut entry, field, moved);
        }
        put(&mut entry, FILE_SIZE, part.len());
        put(&mut entry, MEMORY_SIZE, end.checked_sub(part.start)?);
        table.extend(entry);
    }
    Some(())
}

/// What lies between long padding, in whole pages from the start; the first part is there even when it is empty.
fn parts(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    parts.push(0..bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let fill = bytes[at];
        let rest = &bytes[at..];
        let run = rest.iter().position(|byte| *byte != fill).unwrap_or(rest.len()) / PAGE * PAGE;
        let kept = if fill == INT3 { PAGE } else { 0 };
        if matches!(fill, 0 | INT3) && run >= SHORTEST {
            if let Some(last) = parts.last_mut() {
                last.end = at;
            }
            parts.push(at + run - kept..bytes.len());
        }
        at += run.max(PAGE);
    }
    parts
}

/// A little-endian number of `len` bytes, at most eight.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut whole = [0; 8];
    whole.get_mut(..len)?.copy_from_slice(bytes.get(at..at.checked_add(len)?)?);
    usize::try_from(u64::from_le_bytes(whole)).ok()
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: usize = 0x10_0000;

    /// An executable of one note and one segment whose memory is `bss` longer than `bytes`.
    fn executable(bytes: &[u8], bss: usize) -> Vec<u8> {
        let mut elf = vec![0; 2 * PAGE];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        put(&mut elf, TABLE_AT, 64);
        elf[ENTRY_SIZE_AT] = ENTRY as u8;
        elf[COUNT_AT] = 2;
        elf[64] = 4;
        let load = 64 + ENTRY;
        elf[load] = PT_LOAD as u8;
        for (field, value) in [
            (OFFSET, 2 * PAGE),
            (VIRTUAL, usize::MAX / 2 + BASE),
            (PHYSICAL, BASE),
            (FILE_SIZE, bytes.len()),
            (MEMORY_SIZE, bytes.len() + bss),
        ] {
            put(&mut elf, load + field, value);
        }
        elf.extend(bytes);
        elf
    }

    /// What a loader puts into memory, from `BASE`, with the number of bytes that it reads and the other headers' kinds.
    fn load(elf: &[u8]) -> (Vec<u8>, usize, Vec<usize>) {
        let (mut memory, mut read, mut others) = (Vec::new(), 0, Vec::new());
        let table = number(elf, TABLE_AT, 8).unwrap();
        for index in 0..number(elf, COUNT_AT, 2).unwrap() {
            let at = table + index * ENTRY;
            let field = |field| number(elf, at + field, 8).unwrap();
            let kind = number(elf, at, 4).unwrap();
            if kind as u64 != PT_LOAD {
                others.push(kind);
                continue;
            }
            let start = field(PHYSICAL) - BASE;
            assert_eq!(field(VIRTUAL), usize::MAX / 2 + BASE + start);
            assert_eq!(start, memory.len(), "a gap or an overlap");
            memory.extend(&elf[field(OFFSET)..field(OFFSET) + field(FILE_SIZE)]);
            memory.resize(start + field(MEMORY_SIZE), 0);
            read += field(FILE_SIZE);
        }
        (memory, read, others)
    }

    fn without_padding(elf: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_without_padding(elf, &mut out).unwrap();
        out
    }

    #[test]
    fn zeroes_are_left_out_and_memory_is_the_same() {
        let bytes = [vec![7; 3 * PAGE], vec![0; SHORTEST], vec![9; PAGE + 5], vec![0; 2 * SHORTEST + 17]].concat();
        let elf = executable(&bytes, 12345);
        let (memory, read, others) = load(&without_padding(&elf));
        assert_eq!(memory, load(&elf).0);
        assert_eq!(others, [4]);
        // Five bytes into a page: whole pages count, and what is left of them at both ends stays.
        assert!(read < 8 * PAGE, "{read}");
    }

    #[test]
    fn a_segment_may_begin_and_end_with_padding() {
        let bytes = [vec![0; SHORTEST], vec![1; PAGE], vec![0; SHORTEST]].concat();
        let elf = executable(&bytes, 0);
        let (memory, read, _) = load(&without_padding(&elf));
        assert_eq!((memory, read), (load(&elf).0, PAGE));
    }

    #[test]
    fn the_last_page_of_int3_stays() {
        let bytes = [vec![7; PAGE], vec![INT3; SHORTEST], vec![9; PAGE]].concat();
        let (memory, read, _) = load(&without_padding(&executable(&bytes, 0)));
        let gap = [vec![0; SHORTEST - PAGE], vec![INT3; PAGE]].concat();
        assert_eq!(memory, [vec![7; PAGE], gap, vec![9; PAGE]].concat());
        assert_eq!(read, 3 * PAGE);
    }

    #[test]
    fn short_padding_is_copied() {
        let bytes = [vec![7; PAGE], vec![0; SHORTEST - 1], vec![9; 1]].concat();
        let (_, read, _) = load(&without_padding(&executable(&bytes, 9)));
        assert_eq!(read, bytes.len());
    }

    #[test]
    fn what_is_no_executable_is_an_error() {
        let elf = executable(&[1; PAGE], 0);
        let mut far = elf.clone();
        put(&mut far, TABLE_AT, usize::MAX);
        let mut long = elf.clone();
        put(&mut long, 64 + ENTRY + FILE_SIZE, PAGE + 1);
        for bytes in [b"MZ".as_slice(), &elf[..40], &far, &long] {
            assert!(write_without_padding(bytes, Vec::new()).is_err());
        }
    }
}
