//! Bytes of FUSE requests and replies. Everything read here was written by the guest.

use std::ffi::CStr;

use rustix::io::Errno;

/// What is left of a request.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `EINVAL` when the request is shorter, as with all functions here.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Errno> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Errno::INVAL)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        self.bytes(N)?.try_into().map_err(|_| Errno::INVAL)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string up to its NUL, whatever it says.
    pub fn text(&mut self) -> Result<&'a CStr, Errno> {
        let text = CStr::from_bytes_until_nul(self.rest).map_err(|_| Errno::INVAL)?;
        self.bytes(text.count_bytes().saturating_add(1))?;
        Ok(text)
    }

    /// A name in a directory: one component that is neither the directory itself nor its parent.
    ///
    /// # Errors
    /// `ENAMETOOLONG` beyond 255 bytes, `EINVAL` for anything else that is no such name.
    pub fn name(&mut self) -> Result<&'a CStr, Errno> {
        let name = self.text()?;
        let bytes = name.to_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        if bytes.len() > 255 { Err(Errno::NAMETOOLONG) } else { Ok(name) }
    }
}

/// A reply that is being written, into memory of a fixed size.
#[derive(Debug)]
pub struct Reply {
    buffer: Vec<u8>,
    len: usize,
    /// Bytes that the guest has room for.
    limit: usize,
}

impl Reply {
    /// Room for `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity], len: 0, limit: capacity }
    }

    /// Forgets what was written. From now on there is room for `limit` bytes, or for as many as there is memory.
    pub fn restart(&mut self, limit: usize) {
        self.len = 0;
        self.limit = limit.min(self.buffer.len());
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.len)
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }

    /// Cuts the reply back to `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// # Errors
    /// `EIO` when there is no room: the guest left less than the request's reply needs. As with all functions here.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        let end = self.len.checked_add(bytes.len()).filter(|end| *end <= self.limit).ok_or(Errno::IO)?;
        self.buffer.get_mut(self.len..end).ok_or(Errno::IO)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    pub fn u32(&mut self, value: u32) -> Result<(), Errno> {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(&mut self, value: u64) -> Result<(), Errno> {
        self.bytes(&value.to_le_bytes())
    }

    /// Overwrites bytes from `offset` on that have been written already.
    pub fn patch(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len()).min(self.len);
        if let Some(place) = self.buffer.get_mut(offset..end) {
            for (place, byte) in place.iter_mut().zip(bytes) {
                *place = *byte;
            }
        }
    }

    /// Lets `fill` write up to `len` bytes and say how many it wrote.
    pub fn fill(&mut self, len: usize, fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Result<(), Errno> {
        let len = len.min(self.room());
        let end = self.len.saturating_add(len);
        let space = self.buffer.get_mut(self.len..end).ok_or(Errno::IO)?;
        let filled = fill(space)?.min(len);
        self.len = self.len.saturating_add(filled);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_components() {
        let name = |bytes: &[u8]| Reader::new(bytes).name().map(|n| n.to_bytes().to_vec());
        assert_eq!(name(b"a b\0rest"), Ok(b"a b".to_vec()));
        assert_eq!(name(b"...\0"), Ok(b"...".to_vec()));
        for bad in [&b""[..], b"\0", b".\0", b"..\0", b"a/b\0", b"/\0", b"../x\0", b"endless"] {
            assert_eq!(name(bad), Err(Errno::INVAL), "{bad:?}");
        }
        let mut long = vec![b'x'; 256];
        long.push(0);
        assert_eq!(name(&long), Err(Errno::NAMETOOLONG));
        assert!(name(&long[1..]).is_ok());
    }

    #[test]
    fn numbers_beyond_the_end_are_refused() {
        let mut reader = Reader::new(&[1, 0, 0, 0, 2, 0, 0]);
        assert_eq!(reader.u32(), Ok(1));
        assert_eq!(reader.u32(), Err(Errno::INVAL));
        assert_eq!(reader.bytes(usize::MAX), Err(Errno::INVAL));
        assert_eq!(reader.bytes(3), Ok(&[2, 0, 0][..]));
    }

    #[test]
    fn a_reply_never_outgrows_its_room() {
        let mut reply = Reply::new(64);
        reply.restart(8);
        reply.u32(1).unwrap();
        reply.fill(100, |space| Ok(space.len() + 5)).unwrap();
        assert_eq!((reply.len(), reply.room()), (8, 0));
        assert_eq!(reply.bytes(&[0]), Err(Errno::IO));
        reply.patch(6, &[9; 4]);
        assert_eq!(reply.as_bytes(), [1, 0, 0, 0, 0, 0, 9, 9]);
        reply.restart(usize::MAX);
        assert_eq!(reply.room(), 64);
    }
}
