//! passwd and group files of a hostile image: the first two bytes say where the input is cut into three.

#![no_main]

use dewar_fuzz::users::resolve;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [spec_length, passwd_length, rest @ ..] = data else { return };
    let (spec, files) = rest.split_at(usize::from(*spec_length).min(rest.len()));
    let (passwd, group) = files.split_at(usize::from(*passwd_length).saturating_mul(16).min(files.len()));
    let Ok(spec) = std::str::from_utf8(spec) else { return };
    if let Ok(identity) = resolve(spec, passwd, group) {
        assert!(identity.uid <= i32::MAX as u32 && identity.gid <= i32::MAX as u32);
        assert_eq!(identity.groups.first(), Some(&identity.gid));
        assert!(!identity.home.is_empty());
        let root = spec.is_empty() || spec.starts_with(':') || spec.starts_with("0") || spec.starts_with(['+', '-']);
        // Only an entry with a literal 0 makes another name root.
        assert!(root || identity.uid != 0 || passwd.windows(2).any(|pair| pair == b":0"));
    }
});
