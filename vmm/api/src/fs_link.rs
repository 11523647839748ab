//! How the virtio-fs device and `dewar-fs`, which answers its requests, speak over their stream socket.
//!
//! Each way goes a sequence of frames: a header and that many bytes. From the device, the bytes are a FUSE request as the
//! guest wrote it; from the server, a FUSE reply. The device gives each request a tag, which comes back with its reply: what
//! the guest calls its requests matters to nobody. Replies come in any order. A request with room for no reply gets none.
//!
//! All numbers are little-endian. Neither end trusts the other: a frame outside of the limits is an error.

/// Bytes of either header.
pub const HEADER_SIZE: usize = 16;

/// Data bytes of a read or a write request at most.
pub const MAX_DATA: u32 = 256 << 10;

/// Bytes of a request or a reply at most: its data, and FUSE's own headers and names.
pub const MAX_FRAME: u32 = MAX_DATA + (16 << 10);

/// Bytes of FUSE's header of a request (`struct fuse_in_header`).
pub const FUSE_IN_HEADER: usize = 40;

/// Bytes of FUSE's header of a reply (`struct fuse_out_header`).
pub const FUSE_OUT_HEADER: usize = 16;

/// In front of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Bytes that follow; at most [`MAX_FRAME`].
    pub len: u32,
    /// Bytes of the reply at most; 0 when there shall be none.
    pub max_reply: u32,
    pub tag: u64,
}

impl RequestHeader {
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        join(self.len, self.max_reply, self.tag)
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let (len, max_reply, tag) = split(bytes);
        Self { len, max_reply, tag }
    }
}

/// In front of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// Bytes that follow; at most what the request had room for.
    pub len: u32,
    pub tag: u64,
}

impl ReplyHeader {
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_SIZE] {
        join(self.len, 0, self.tag)
    }

    #[must_use]
    pub fn from_bytes(bytes: [u8; HEADER_SIZE]) -> Self {
        let (len, _, tag) = split(bytes);
        Self { len, tag }
    }
}

fn join(first: u32, second: u32, tag: u64) -> [u8; HEADER_SIZE] {
    let number = u128::from(first) | (u128::from(second) << 32) | (u128::from(tag) << 64);
    number.to_le_bytes()
}

fn split(bytes: [u8; HEADER_SIZE]) -> (u32, u32, u64) {
    let [a, b, c, d, e, f, g, h, tag @ ..] = bytes;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]), u64::from_le_bytes(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_socket() {
        let request = RequestHeader { len: 1, max_reply: 0x0203_0405, tag: u64::MAX - 7 };
        assert_eq!(RequestHeader::from_bytes(request.to_bytes()), request);
        let reply = ReplyHeader { len: u32::MAX, tag: 9 };
        assert_eq!(ReplyHeader::from_bytes(reply.to_bytes()), reply);
        assert_eq!(reply.to_bytes()[..4], [0xff; 4]);
    }
}
