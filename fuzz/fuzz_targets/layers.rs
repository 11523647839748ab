//! A layer's tar, on its way to an EROFS image: whatever the bytes are, the answer is an image or an error, within the
//! limits.

#![no_main]

use std::path::Path;

use dewar_runtime::images::erofs::{Limits, convert};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(fd) = rustix::fs::memfd_create("layer", rustix::fs::MemfdFlags::CLOEXEC) else { return };
    let limits = Limits { entries: 64, metadata: 1 << 20, unpacked: 4 << 20 };
    if let Ok(summary) = convert(data, fd.into(), Path::new("layer"), limits) {
        assert_eq!(summary.length % 4096, 0);
        assert!(summary.unpacked <= limits.unpacked);
    }
});
