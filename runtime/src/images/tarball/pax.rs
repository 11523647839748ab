//! PAX extended headers: `length key=value\n` records, whose values may hold any byte.

use std::collections::BTreeMap;

use super::sparse::PaxSparse;
use super::{TarError, Timestamp};

const BAD: TarError = TarError::Malformed { what: "a PAX header cannot be parsed" };

/// What extension headers say about the entry that follows them.
#[derive(Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Option<PaxSparse>,
}

impl Records {
    pub(super) fn parse(&mut self, mut content: &[u8]) -> Result<(), TarError> {
        // Some writers pad with zeros.
        while !content.is_empty() && content.first() != Some(&0) {
            let space = content.iter().take(20).position(|b| *b == b' ').ok_or(BAD)?;
            let length = usize::try_from(decimal(content.get(..space).ok_or(BAD)?)?).map_err(|_| BAD)?;
            let record = content.get(space.saturating_add(1)..length).ok_or(BAD)?;
            let record = record.strip_suffix(b"\n").ok_or(BAD)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or(BAD)?;
            let (key, value) = record.split_at_checked(equals).ok_or(BAD)?;
            self.record(key, value.get(1..).ok_or(BAD)?)?;
            content = content.get(length..).ok_or(BAD)?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.get_or_insert_default().record(name, value);
        }
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(timestamp(value)?),
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn decimal(text: &[u8]) -> Result<u64, TarError> {
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    if text.starts_with('+') {
        return Err(BAD);
    }
    text.parse().map_err(|_| BAD)
}

/// `[-]seconds[.fraction]`.
fn timestamp(text: &[u8]) -> Result<Timestamp, TarError> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next().unwrap_or_default())?).map_err(|_| BAD)?;
    let mut nanoseconds = 0u32;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    for digit in fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9) {
        nanoseconds = nanoseconds.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0')));
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: seconds.saturating_neg(), nanoseconds },
        // Nanoseconds always count forward.
        (true, _) => Timestamp {
            seconds: seconds.saturating_neg().saturating_sub(1),
            nanoseconds: 1_000_000_000u32.saturating_sub(nanoseconds),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines() {
        let mut records = Records::default();
        records.parse(b"30 SCHILY.xattr.user.a=x\n\0=\ny\n12 path=a/b\n").unwrap();
        assert_eq!(records.xattrs[b"user.a".as_slice()], b"x\n\0=\ny");
        assert_eq!(records.path.as_deref(), Some(b"a/b".as_slice()));
    }

    #[test]
    fn lengths_are_checked() {
        for bad in [&b"99 path=a\n"[..], b"3 path=a\n", b"path=a\n", b"10 path=ab", b"0 path=a\n", b"10 pathxab\n"] {
            assert!(Records::default().parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times_before_the_epoch_count_forward() {
        assert_eq!(timestamp(b"12.5").unwrap(), Timestamp { seconds: 12, nanoseconds: 500_000_000 });
        assert_eq!(timestamp(b"-1.25").unwrap(), Timestamp { seconds: -2, nanoseconds: 750_000_000 });
        assert_eq!(timestamp(b"-3").unwrap(), Timestamp { seconds: -3, nanoseconds: 0 });
        assert!(timestamp(b"1.x").is_err());
    }
}
