//! The receive queue as a source of buffers, several of which can be out at a time: one read from a socket fills many.
//!
//! Between two turns none is out, so a stopped queue goes on from its used index.

use dewar_virtio::{
    ActiveQueue, GuestMemory, RingError,
    queue::{Segments, slices},
};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddress, VolatileSlice};

use super::{
    MAX_SEGMENTS,
    packet::{HEADER_SIZE, Header},
};

/// A buffer that the guest provided for one packet.
pub(super) struct GuestBuffer<'m> {
    head: u16,
    pub(super) segments: Vec<VolatileSlice<'m>>,
}

impl<'m> GuestBuffer<'m> {
    /// Bytes of payload that there is room for.
    pub(super) fn room(&self) -> usize {
        let total = self.segments.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        total.saturating_sub(HEADER_SIZE)
    }

    /// Appends what lies behind the header, `wanted` bytes at most, and returns how many are still wanted.
    pub(super) fn append_payload(&self, parts: &mut Vec<VolatileSlice<'m>>, mut wanted: usize) -> usize {
        let mut skip = HEADER_SIZE;
        for segment in &self.segments {
            let skipped = skip.min(segment.len());
            skip = skip.saturating_sub(skipped);
            let len = segment.len().saturating_sub(skipped).min(wanted);
            if len > 0
                && let Ok(part) = segment.subslice(skipped, len)
            {
                parts.push(part);
                wanted = wanted.saturating_sub(len);
            }
        }
        wanted
    }
}

pub(super) struct BufferRing<'m> {
    queue: &'m mut ActiveQueue,
    memory: &'m GuestMemory,
}

impl<'m> BufferRing<'m> {
    pub(super) fn new(queue: &'m mut ActiveQueue, memory: &'m GuestMemory) -> Self {
        Self { queue, memory }
    }

    /// The next buffer, if the guest has provided one; cut off after [`MAX_SEGMENTS`].
    pub(super) fn take(&mut self) -> Result<Option<GuestBuffer<'m>>, RingError> {
        let queue = &mut self.queue.queue;
        let next = queue.iter(self.memory).map_err(|source| RingError::Rings { source })?.next();
        let Some(head) = next.map(|chain| chain.head_index()) else { return Ok(None) };
        let walked = Segments::walk(self.memory, GuestAddress(queue.desc_table()), queue.size(), head)?;
        let mut segments = slices(self.memory, &walked.writable)?;
        segments.truncate(MAX_SEGMENTS);
        Ok(Some(GuestBuffer { head, segments }))
    }

    /// Gives the `count` buffers back that were taken last.
    pub(super) fn untake(&mut self, count: u16) {
        let queue = &mut self.queue.queue;
        queue.set_next_avail(queue.next_avail().wrapping_sub(count));
    }

    /// Writes the header of a packet whose payload is in place, and hands it to the guest.
    pub(super) fn fill(&mut self, buffer: &GuestBuffer<'m>, header: Header) -> Result<(), RingError> {
        let wire = header.to_wire();
        let mut rest: &[u8] = &wire;
        for segment in &buffer.segments {
            let (now, later) = rest.split_at(rest.len().min(segment.len()));
            segment.copy_from(now);
            rest = later;
        }
        let header_size = u32::try_from(HEADER_SIZE).unwrap_or(0);
        self.add_used(buffer.head, header_size.saturating_add(header.len))
    }

    /// Hands a buffer back to the guest empty.
    pub(super) fn discard(&mut self, buffer: &GuestBuffer<'m>) -> Result<(), RingError> {
        self.add_used(buffer.head, 0)
    }

    fn add_used(&mut self, head: u16, len: u32) -> Result<(), RingError> {
        self.queue.queue.add_used(self.memory, head, len).map_err(|source| RingError::Rings { source })
    }
}
