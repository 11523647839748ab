//! Requests of a hostile driver: one that is accepted lies on the disk, and changes nothing on a read-only one.

#![no_main]

use dewar_devices::blk::request::{HEADER_SIZE, Limits, Request, parse_ranges};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((header, rest)) = data.split_first_chunk::<HEADER_SIZE>() else { return };
    let [flags, low, high, ranges @ ..] = rest else { return };
    let limits = Limits { size: u64::from(*low) << 9, read_only: flags & 1 != 0 };
    let (readable, writable) = (HEADER_SIZE + usize::from(*high) * 64, usize::from(*low) * 64 + 1);
    let _ = Request::parse(*header, readable, writable, limits);
    if let Ok(ranges) = parse_ranges(ranges, flags & 2 != 0, limits) {
        for range in ranges {
            assert!(range.offset.checked_add(range.len).is_some_and(|end| end <= limits.size), "{range:?}");
        }
    }
});
