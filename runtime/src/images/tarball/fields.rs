//! The 512-byte header: where its fields lie and how their numbers are written.

use super::{BLOCK, TarError, Timestamp};

/// A header block. Fields are read on demand; offsets are constants within the block.
pub(super) struct Header([u8; BLOCK as usize]);

impl Header {
    pub(super) fn new(block: [u8; BLOCK as usize]) -> Self {
        Self(block)
    }

    pub(super) fn field(&self, start: usize, length: usize) -> &[u8] {
        self.0.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> u8 {
        self.field(156, 1).first().copied().unwrap_or(0)
    }

    pub(super) fn checksum_holds(&self) -> bool {
        let sum = |bytes: &[u8]| bytes.iter().map(|b| u64::from(*b)).sum::<u64>();
        let expected = sum(self.field(0, 148)) + 8 * u64::from(b' ') + sum(self.field(156, 356));
        number(self.field(148, 8)).is_ok_and(|found| found == expected)
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        // GNU's own format keeps other things where ustar keeps the prefix.
        if self.field(257, 6) == b"ustar\0" && !prefix.is_empty() {
            [prefix, b"/", name].concat()
        } else {
            name.to_vec()
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_nul(self.field(157, 100)).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u64, TarError> {
        number(self.field(100, 8))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        number(self.field(108, 8))
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        number(self.field(116, 8))
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        number(self.field(124, 12))
    }

    pub(super) fn mtime(&self) -> Result<Timestamp, TarError> {
        // Base 256 is two's complement: what comes before the epoch keeps its sign.
        Ok(Timestamp { seconds: number(self.field(136, 12))?.cast_signed(), nanoseconds: 0 })
    }

    pub(super) fn device(&self) -> Result<(u32, u32), TarError> {
        let part = |start| {
            let value = number(self.field(start, 8))?;
            u32::try_from(value).map_err(|_| TarError::Malformed { what: "a device number is above 32 bits" })
        };
        Ok((part(329)?, part(337)?))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

/// An octal number in ASCII with any padding, or, when the highest bit is set, a big-endian one; empty means 0.
pub(super) fn number(field: &[u8]) -> Result<u64, TarError> {
    const BAD: TarError = TarError::Malformed { what: "a number in a header is not one" };
    if let [first @ (0x80 | 0xff), rest @ ..] = field {
        let sign = if *first == 0xff { 0xff } else { 0 };
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        if high.iter().any(|b| *b != sign) {
            return Err(BAD);
        }
        let start = if sign == 0 { 0 } else { u64::MAX };
        return Ok(low.iter().fold(start, |value, b| value << 8 | u64::from(*b)));
    }
    let text = field.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
    text.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8).and_then(|v| v.checked_add(u64::from(digit - b'0'))).ok_or(BAD),
        _ => Err(BAD),
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0").unwrap(), 0o644);
        assert_eq!(number(b" 755 \0\0\0").unwrap(), 0o755);
        assert_eq!(number(b"\0\0\0\0").unwrap(), 0);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]).unwrap(), 2 << 32);
        assert_eq!(number(&[0xff; 12]).unwrap().cast_signed(), -1);
        assert!(number(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(number(b"12x").is_err());
        assert!(number(b"77777777777777777777777777").is_err());
    }
}
