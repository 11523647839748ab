//! The bytes of one connection that the host program has not taken yet: a ring of fixed size, allocated when first needed
//! and given back when empty.

use std::io::IoSlice;

use vm_memory::VolatileSlice;

/// A byte ring that never grows beyond the size it was made for.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    size: usize,
    start: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn new(size: usize) -> Self {
        Self { bytes: Box::default(), size, start: 0, len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends as much of `data` as there is room for and returns how much that was.
    pub(super) fn push(&mut self, data: &VolatileSlice<'_>) -> usize {
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.size].into_boxed_slice();
        }
        let mut pushed = 0;
        while let Ok(rest) = data.offset(pushed) {
            let copied = rest.copy_to(self.vacant());
            if copied == 0 {
                break;
            }
            self.len = self.len.saturating_add(copied);
            pushed = pushed.saturating_add(copied);
        }
        pushed
    }

    /// The first contiguous stretch of free space.
    fn vacant(&mut self) -> &mut [u8] {
        let end = self.start.saturating_add(self.len);
        let (from, to) = match end.checked_sub(self.bytes.len()) {
            Some(wrapped) => (wrapped, self.start),
            None => (end, self.bytes.len()),
        };
        self.bytes.get_mut(from..to).unwrap_or_default()
    }

    /// What is held, oldest first.
    pub(super) fn slices(&self) -> [IoSlice<'_>; 2] {
        let end = self.start.saturating_add(self.len);
        let (first, second) = match end.checked_sub(self.bytes.len()) {
            Some(wrapped) => (self.start..self.bytes.len(), 0..wrapped),
            None => (self.start..end, 0..0),
        };
        [first, second].map(|range| IoSlice::new(self.bytes.get(range).unwrap_or_default()))
    }

    /// Drops the oldest `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        if self.len == 0 {
            self.clear();
            return;
        }
        let start = self.start.saturating_add(count);
        self.start = start.checked_sub(self.bytes.len()).unwrap_or(start);
    }

    /// Drops everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.bytes = Box::default();
        self.start = 0;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut Buffer, bytes: &[u8]) -> usize {
        let mut bytes = bytes.to_vec();
        buffer.push(&VolatileSlice::from(bytes.as_mut_slice()))
    }

    fn held(buffer: &Buffer) -> Vec<u8> {
        buffer.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn keeps_order_across_the_wrap_and_refuses_more_than_its_size() {
        let mut buffer = Buffer::new(8);
        assert_eq!(push(&mut buffer, b"abcdef"), 6);
        buffer.consume(4);
        assert_eq!(push(&mut buffer, b"ghijkl"), 6);
        assert_eq!(push(&mut buffer, b"m"), 0);
        assert_eq!(held(&buffer), b"efghijkl");
        buffer.consume(5);
        assert_eq!(held(&buffer), b"jkl");
        assert_eq!(push(&mut buffer, b"nopqrst"), 5);
        assert_eq!(held(&buffer), b"jklnopqr");
        assert_eq!(buffer.len, 8);
    }

    #[test]
    fn gives_its_memory_back_when_empty() {
        let mut buffer = Buffer::new(8);
        assert_eq!(push(&mut buffer, b"ab"), 2);
        assert_eq!(buffer.bytes.len(), 8);
        buffer.consume(2);
        assert!(buffer.is_empty());
        assert!(buffer.bytes.is_empty());
        assert!(held(&buffer).is_empty());
    }
}
