//! Extended attributes, encoded as they follow an inode.

use std::collections::BTreeMap;

use super::Problem;

/// What Linux lets one inode have in all.
const MAX_TOTAL: usize = 64 << 10;

/// Prefixes that have a number instead of being spelled out. Attributes without one cannot be stored: they belong to
/// particular file systems and mean nothing on another.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// The entries that follow the 12 bytes of header; empty when there is nothing to store.
pub(super) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Box<[u8]>, Problem> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        // How layers are stacked is said by whiteouts; an image has no say in overlayfs' redirections.
        if name.starts_with(b"trusted.overlay.") {
            continue;
        }
        push(&mut out, name, value)?;
    }
    Ok(out.into())
}

/// The given entries and the mark of an opaque directory.
pub(super) fn with_opaque(xattrs: &[u8]) -> Result<Box<[u8]>, Problem> {
    let mut out = xattrs.to_vec();
    push(&mut out, b"trusted.overlay.opaque", b"y")?;
    Ok(out.into())
}

fn push(out: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), Problem> {
    let Some((rest, index)) = PREFIXES.iter().find_map(|(prefix, index)| {
        let rest = name.strip_prefix(*prefix)?;
        (rest.is_empty() != prefix.ends_with(b".")).then_some((rest, *index))
    }) else {
        return Ok(());
    };
    let name_length = u8::try_from(rest.len()).map_err(|_| Problem::Xattrs)?;
    let value_length = u16::try_from(value.len()).map_err(|_| Problem::Xattrs)?;
    out.extend_from_slice(&[name_length, index]);
    out.extend_from_slice(&value_length.to_le_bytes());
    out.extend_from_slice(rest);
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
    if out.len() > MAX_TOTAL { Err(Problem::Xattrs) } else { Ok(()) }
}

/// Bytes between an inode and its map or tail.
pub(super) fn size(xattrs: &[u8]) -> u64 {
    if xattrs.is_empty() { 0 } else { (xattrs.len() as u64).saturating_add(12) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(pairs: &[(&str, &[u8])]) -> Result<Box<[u8]>, Problem> {
        encode(&pairs.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.to_vec())).collect())
    }

    #[test]
    fn prefixes_become_numbers() {
        assert_eq!(*encoded(&[("user.ab", b"xyz")]).unwrap(), *b"\x02\x01\x03\0abxyz\0\0\0");
        assert_eq!(*encoded(&[("system.posix_acl_access", b"1234")]).unwrap(), *b"\0\x02\x04\x001234");
        assert!(encoded(&[("system.posix_acl_accessory", b"1"), ("btrfs.x", b""), ("user.", b"")]).unwrap().is_empty());
    }

    #[test]
    fn an_image_does_not_steer_the_overlay() {
        assert!(encoded(&[("trusted.overlay.redirect", b"/etc")]).unwrap().is_empty());
        assert_eq!(*with_opaque(&[]).unwrap(), *b"\x0e\x04\x01\0overlay.opaquey\0");
    }

    #[test]
    fn size_is_bounded() {
        assert_eq!(encoded(&[("user.a", &[0; 65536])]), Err(Problem::Xattrs));
        assert_eq!(encoded(&[("user.a", &[0; 40000]), ("user.b", &[0; 40000])]), Err(Problem::Xattrs));
    }
}
