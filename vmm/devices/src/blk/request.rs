//! What a request says. Section 5.2.6. Pure: bytes and lengths in, a checked request or the driver's mistake out.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID,
    VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// Bytes of a sector, whatever the block size.
pub const SECTOR_SIZE: u64 = 512;

/// Bytes of `struct virtio_blk_req` in front of the data.
pub const HEADER_SIZE: usize = 16;

/// Bytes of `struct virtio_blk_discard_write_zeroes`.
pub const RANGE_SIZE: usize = 16;

/// Ranges that one discard or write-zeroes request may have.
pub const MAX_RANGES: usize = 32;

/// Sectors of one such range: 128 MiB. Where the file system cannot clear a range by itself, zeros are written, and a
/// reset waits for that.
pub const MAX_RANGE_SECTORS: u32 = 1 << 18;

/// A request, checked against the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// From `offset` of the disk to the first `len` writable bytes of the chain.
    Read {
        offset: u64,
        len: usize,
    },
    /// From the `len` readable bytes behind the header to `offset` of the disk.
    Write {
        offset: u64,
        len: usize,
    },
    Flush,
    /// To the first `len` writable bytes of the chain.
    GetId {
        len: usize,
    },
    /// The ranges are the `len` readable bytes behind the header, for [`parse_ranges`].
    Discard {
        len: usize,
    },
    /// As with [`Request::Discard`].
    WriteZeroes {
        len: usize,
    },
}

/// What the requests are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub size: u64,
    pub read_only: bool,
}

/// What the driver did wrong. The request is answered, and nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("The request has {readable} readable bytes and {writable} writable ones: too few")]
    TooShort { readable: usize, writable: usize },
    #[error("{len} bytes are no whole number of sectors")]
    Partial { len: usize },
    #[error("Sector {sector} and the {len} bytes from there on are not all on the disk")]
    BeyondEnd { sector: u64, len: u64 },
    #[error("The disk is read-only")]
    ReadOnly,
    #[error("Requests of type {kind} are not known")]
    UnknownType { kind: u32 },
    #[error("The flags {flags:#x} of a range are not known")]
    UnknownFlags { flags: u32 },
    #[error("{len} bytes are no ranges, or too many of them")]
    Ranges { len: usize },
    #[error("A range has {sectors} sectors: too many")]
    RangeTooLong { sectors: u32 },
}

impl RequestError {
    /// The status byte that the driver gets.
    #[must_use]
    pub fn status(self) -> u8 {
        let status = match self {
            Self::UnknownType { .. } | Self::UnknownFlags { .. } => VIRTIO_BLK_S_UNSUPP,
            _ => VIRTIO_BLK_S_IOERR,
        };
        u8::try_from(status).unwrap_or(u8::MAX)
    }
}

impl Request {
    /// Parses a request whose chain starts with `header` and has `readable` and `writable` bytes in all; the last
    /// writable byte is the status.
    pub fn parse(
        header: [u8; HEADER_SIZE],
        readable: usize,
        writable: usize,
        limits: Limits,
    ) -> Result<Self, RequestError> {
        let too_short = RequestError::TooShort { readable, writable };
        let out_len = readable.checked_sub(HEADER_SIZE).ok_or(too_short)?;
        let in_len = writable.checked_sub(1).ok_or(too_short)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let kind = u32::from_le_bytes([t0, t1, t2, t3]);
        let sector = u64::from_le_bytes(sector);
        match kind {
            VIRTIO_BLK_T_IN => Ok(Self::Read { offset: checked_offset(sector, in_len, limits)?, len: in_len }),
            VIRTIO_BLK_T_GET_ID => Ok(Self::GetId { len: in_len }),
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_FLUSH | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES
                if limits.read_only =>
            {
                Err(RequestError::ReadOnly)
            }
            VIRTIO_BLK_T_OUT => Ok(Self::Write { offset: checked_offset(sector, out_len, limits)?, len: out_len }),
            VIRTIO_BLK_T_FLUSH => Ok(Self::Flush),
            VIRTIO_BLK_T_DISCARD => Ok(Self::Discard { len: checked_ranges(out_len)? }),
            VIRTIO_BLK_T_WRITE_ZEROES => Ok(Self::WriteZeroes { len: checked_ranges(out_len)? }),
            _ => Err(RequestError::UnknownType { kind }),
        }
    }
}

fn checked_offset(sector: u64, len: usize, limits: Limits) -> Result<u64, RequestError> {
    let bytes = u64::try_from(len).unwrap_or(u64::MAX);
    if !bytes.is_multiple_of(SECTOR_SIZE) {
        return Err(RequestError::Partial { len });
    }
    offset_on_disk(sector, bytes, limits)
}

fn offset_on_disk(sector: u64, len: u64, limits: Limits) -> Result<u64, RequestError> {
    let offset = sector.checked_mul(SECTOR_SIZE);
    let end = offset.and_then(|offset| offset.checked_add(len)).filter(|end| *end <= limits.size);
    offset.filter(|_| end.is_some()).ok_or(RequestError::BeyondEnd { sector, len })
}

fn checked_ranges(len: usize) -> Result<usize, RequestError> {
    let most = MAX_RANGES.saturating_mul(RANGE_SIZE);
    if len == 0 || len > most || !len.is_multiple_of(RANGE_SIZE) {
        return Err(RequestError::Ranges { len });
    }
    Ok(len)
}

/// A range of the disk to discard or zero, checked against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The blocks may be given back to the host.
    pub unmap: bool,
}

/// Parses the ranges of a discard, or with `zeroes` of a write-zeroes, request. All of them are checked before any is
/// carried out.
pub fn parse_ranges(bytes: &[u8], zeroes: bool, limits: Limits) -> Result<Vec<Range>, RequestError> {
    let (ranges, rest) = bytes.as_chunks::<RANGE_SIZE>();
    if !rest.is_empty() {
        return Err(RequestError::Ranges { len: bytes.len() });
    }
    ranges.iter().map(|range| parse_range(*range, zeroes, limits)).collect()
}

fn parse_range(bytes: [u8; RANGE_SIZE], zeroes: bool, limits: Limits) -> Result<Range, RequestError> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = bytes;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
    let flags = u32::from_le_bytes(flags);
    let unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
    // A discard has no flags: section 5.2.6.2.
    if flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 || (unmap && !zeroes) {
        return Err(RequestError::UnknownFlags { flags });
    }
    if sectors > MAX_RANGE_SECTORS {
        return Err(RequestError::RangeTooLong { sectors });
    }
    let len = u64::from(sectors).saturating_mul(SECTOR_SIZE);
    Ok(Range { offset: offset_on_disk(sector, len, limits)?, len, unmap })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Limits = Limits { size: 8192, read_only: false };

    fn header(kind: u32, sector: u64) -> [u8; HEADER_SIZE] {
        let mut header = [0xee; HEADER_SIZE];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
        [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
    }

    #[test]
    fn transfers_stay_on_the_disk() {
        let read = |sector, len: usize| Request::parse(header(VIRTIO_BLK_T_IN, sector), 16, len + 1, DISK);
        assert_eq!(read(15, 512), Ok(Request::Read { offset: 7680, len: 512 }));
        assert_eq!(read(0, 8192), Ok(Request::Read { offset: 0, len: 8192 }));
        assert_eq!(read(15, 1024), Err(RequestError::BeyondEnd { sector: 15, len: 1024 }));
        assert_eq!(read(u64::MAX, 512), Err(RequestError::BeyondEnd { sector: u64::MAX, len: 512 }));
        assert_eq!(read(u64::MAX / 512, 512), Err(RequestError::BeyondEnd { sector: u64::MAX / 512, len: 512 }));
        assert_eq!(read(0, 511), Err(RequestError::Partial { len: 511 }));
        let write = |sector, len: usize| Request::parse(header(VIRTIO_BLK_T_OUT, sector), len + 16, 1, DISK);
        assert_eq!(write(1, 1024), Ok(Request::Write { offset: 512, len: 1024 }));
        assert_eq!(write(16, 512), Err(RequestError::BeyondEnd { sector: 16, len: 512 }));
    }

    #[test]
    fn a_read_only_disk_takes_no_request_that_could_change_it() {
        let limits = Limits { read_only: true, ..DISK };
        for kind in [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            assert_eq!(Request::parse(header(kind, 0), 16 + 512, 1, limits), Err(RequestError::ReadOnly));
        }
        assert!(Request::parse(header(VIRTIO_BLK_T_IN, 0), 16, 513, limits).is_ok());
        assert_eq!(u32::from(RequestError::ReadOnly.status()), VIRTIO_BLK_S_IOERR);
    }

    #[test]
    fn requests_without_room_for_header_or_status_are_refused() {
        for (readable, writable) in [(15, 513), (16, 0), (0, 0)] {
            let result = Request::parse(header(VIRTIO_BLK_T_IN, 0), readable, writable, DISK);
            assert_eq!(result, Err(RequestError::TooShort { readable, writable }));
        }
    }

    #[test]
    fn unknown_types_are_unsupported() {
        let error = Request::parse(header(0x99, 0), 16, 1, DISK).unwrap_err();
        assert_eq!(error, RequestError::UnknownType { kind: 0x99 });
        assert_eq!(u32::from(error.status()), VIRTIO_BLK_S_UNSUPP);
    }

    #[test]
    fn the_number_of_ranges_is_limited() {
        let parse = |len| Request::parse(header(VIRTIO_BLK_T_DISCARD, 0), 16 + len, 1, DISK);
        assert_eq!(parse(32), Ok(Request::Discard { len: 32 }));
        for len in [0, 15, 17, (MAX_RANGES + 1) * RANGE_SIZE] {
            assert_eq!(parse(len), Err(RequestError::Ranges { len }));
        }
    }

    #[test]
    fn ranges_are_checked() {
        let both = [range(0, 8, 0), range(8, 8, 1)].concat();
        assert_eq!(
            parse_ranges(&both, true, DISK).unwrap(),
            [Range { offset: 0, len: 4096, unmap: false }, Range { offset: 4096, len: 4096, unmap: true }]
        );
        assert_eq!(parse_ranges(&both, false, DISK), Err(RequestError::UnknownFlags { flags: 1 }));
        assert_eq!(parse_ranges(&range(0, 8, 2), true, DISK), Err(RequestError::UnknownFlags { flags: 2 }));
        assert_eq!(parse_ranges(&range(9, 8, 0), true, DISK), Err(RequestError::BeyondEnd { sector: 9, len: 4096 }));
        let sectors = MAX_RANGE_SECTORS + 1;
        assert_eq!(parse_ranges(&range(0, sectors, 0), true, DISK), Err(RequestError::RangeTooLong { sectors }));
        assert_eq!(parse_ranges(&[0; 17], true, DISK), Err(RequestError::Ranges { len: 17 }));
    }
}
