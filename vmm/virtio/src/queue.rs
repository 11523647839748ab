//! Walking a virtqueue that a hostile driver fills. Section 2.7.
//!
//! A [`Chain`] that exists has been checked: its descriptors form a finite list, device-readable ones come first, all of
//! them lie in guest memory, and their lengths add up. What the *bytes* say is still the guest's allegation, and may
//! change while it is being read: read a field once.
//!
//! One chain at a time is out of a queue, since it borrows the queue; dropping it returns it to the used ring. So
//! between two calls of a device's code nothing is ever in flight, and a stopped queue goes on from its used index.

use std::sync::atomic::Ordering;

use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{
    Queue, QueueOwnedT, QueueT,
    desc::{RawDescriptor, split::Descriptor},
};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, Permissions, VolatileSlice};
use vmm_sys_util::eventfd::EventFd;

use crate::device::{GuestMemory, Interrupt};

/// Descriptors that a chain may have in all, whatever the size of an indirect table.
pub const MAX_SEGMENTS: usize = 1024;

/// Bytes of a descriptor in guest memory.
const DESCRIPTOR_SIZE: u64 = size_of::<RawDescriptor>() as u64;

/// A queue while the device is active.
#[derive(Debug)]
pub struct ActiveQueue {
    pub index: u16,
    pub queue: Queue,
    /// Readable when the driver has made chains available. Non-blocking.
    pub kick: EventFd,
}

/// How the driver has broken a ring. The device must stop, and report that it needs a reset.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("Walking the rings of the queue failed")]
    Rings { source: virtio_queue::Error },
    #[error("Descriptor {index} is beyond the {size} of its table")]
    Index { index: u16, size: u16 },
    #[error("The descriptor table at guest address {table:#x} is not in guest memory")]
    Table { table: u64, source: GuestMemoryError },
    #[error("The indirect table of {len} bytes is nested, empty or no whole number of descriptors")]
    Indirect { len: u32 },
    #[error("The chain has a loop, or more than {limit} descriptors")]
    TooLong { limit: usize },
    #[error("The chain's lengths add up to more than 4 GiB")]
    TooMany,
    #[error("A device-readable descriptor follows a device-writable one")]
    Order,
    #[error("The {len} bytes at guest address {address:#x} are not in guest memory")]
    OutsideMemory { address: u64, len: u32 },
    #[error("Guest memory could not be accessed")]
    Memory { source: GuestMemoryError },
    #[error("{wanted} bytes at offset {offset} are beyond the chain's {len}")]
    BeyondChain { offset: usize, wanted: usize, len: usize },
}

/// A buffer in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub address: GuestAddress,
    pub len: u32,
}

/// The buffers of a chain, checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Segments {
    /// What the driver wrote for the device.
    pub readable: Vec<Segment>,
    /// What the device may write.
    pub writable: Vec<Segment>,
}

impl Segments {
    /// Walks the chain that starts at descriptor `head` of a `table` of `size` entries.
    pub fn walk(memory: &GuestMemory, table: GuestAddress, size: u16, head: u16) -> Result<Self, RingError> {
        let mut segments = Self::default();
        let (mut table, mut size, mut index) = (table, size, head);
        let mut in_indirect = false;
        let mut total = 0u32;
        for _ in 0..MAX_SEGMENTS {
            let descriptor = read_descriptor(memory, table, size, index)?;
            if descriptor.refers_to_indirect_table() {
                let bad = || RingError::Indirect { len: descriptor.len() };
                let bytes = u64::from(descriptor.len());
                let whole = bytes.is_multiple_of(DESCRIPTOR_SIZE) && bytes != 0;
                if in_indirect || descriptor.has_next() || !whole {
                    return Err(bad());
                }
                let entries = bytes.checked_div(DESCRIPTOR_SIZE).ok_or_else(bad)?;
                in_indirect = true;
                (table, index) = (descriptor.addr(), 0);
                size = u16::try_from(entries).map_err(|_| bad())?;
                continue;
            }
            total = total.checked_add(descriptor.len()).ok_or(RingError::TooMany)?;
            segments.push(memory, descriptor)?;
            if !descriptor.has_next() {
                return Ok(segments);
            }
            index = descriptor.next();
        }
        Err(RingError::TooLong { limit: MAX_SEGMENTS })
    }

    fn push(&mut self, memory: &GuestMemory, descriptor: Descriptor) -> Result<(), RingError> {
        let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
        let outside = || RingError::OutsideMemory { address: segment.address.0, len: segment.len };
        let len = usize::try_from(segment.len).map_err(|_| outside())?;
        if !GuestMemoryBackend::check_range(memory, segment.address, len) {
            return Err(outside());
        }
        if descriptor.is_write_only() {
            self.writable.push(segment);
        } else if self.writable.is_empty() {
            self.readable.push(segment);
        } else {
            return Err(RingError::Order);
        }
        Ok(())
    }
}

fn read_descriptor(memory: &GuestMemory, table: GuestAddress, size: u16, index: u16) -> Result<Descriptor, RingError> {
    if index >= size {
        return Err(RingError::Index { index, size });
    }
    let outside = |source| RingError::Table { table: table.0, source };
    let offset = u64::from(index).saturating_mul(DESCRIPTOR_SIZE);
    let address = table.checked_add(offset).ok_or_else(|| outside(GuestMemoryError::InvalidGuestAddress(table)))?;
    memory.read_obj(address).map_err(outside)
}

/// Bytes in all of `segments`.
#[must_use]
pub fn total_len(segments: &[Segment]) -> usize {
    segments.iter().fold(0usize, |sum, segment| sum.saturating_add(usize::try_from(segment.len).unwrap_or(usize::MAX)))
}

/// The part of `segments` that starts at `offset` and has `len` bytes.
pub fn sub_range(segments: &[Segment], offset: usize, len: usize) -> Result<Vec<Segment>, RingError> {
    let beyond = || RingError::BeyondChain { offset, wanted: len, len: total_len(segments) };
    let (mut skip, mut wanted) = (offset, len);
    let mut part = Vec::with_capacity(segments.len());
    for segment in segments {
        if wanted == 0 {
            break;
        }
        let here = usize::try_from(segment.len).map_err(|_| beyond())?;
        let Some(rest) = here.checked_sub(skip).filter(|rest| *rest > 0) else {
            skip = skip.saturating_sub(here);
            continue;
        };
        let taken = rest.min(wanted);
        let address = segment.address.checked_add(u64::try_from(skip).map_err(|_| beyond())?).ok_or_else(beyond)?;
        part.push(Segment { address, len: u32::try_from(taken).map_err(|_| beyond())? });
        wanted = wanted.saturating_sub(taken);
        skip = 0;
    }
    if wanted == 0 { Ok(part) } else { Err(beyond()) }
}

/// A descriptor chain that the driver made available and the device has not yet used.
///
/// Dropped, it goes back to the used ring with a length of 0.
#[must_use = "dropping a chain returns it to the driver unused"]
#[derive(Debug)]
pub struct Chain<'q> {
    queue: &'q mut Queue,
    memory: &'q GuestMemory,
    head: u16,
    segments: Segments,
    returned: bool,
}

impl<'q> Chain<'q> {
    #[must_use]
    pub fn memory(&self) -> &'q GuestMemory {
        self.memory
    }

    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        &self.segments.readable
    }

    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        &self.segments.writable
    }

    /// Bytes that the driver wrote.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        total_len(&self.segments.readable)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_len(&self) -> usize {
        total_len(&self.segments.writable)
    }

    /// Copies the driver's bytes from `offset` on to all of `buffer`.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), RingError> {
        let mut rest = buffer;
        for slice in self.readable_slices(offset, rest.len())? {
            let copied = slice.copy_to(rest);
            rest = rest.get_mut(copied..).unwrap_or_default();
        }
        Ok(())
    }

    /// Copies all of `bytes` to what the device may write, from `offset` on.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), RingError> {
        let mut rest = bytes;
        for slice in self.writable_slices(offset, bytes.len())? {
            slice.copy_from(rest);
            rest = rest.get(slice.len()..).unwrap_or_default();
        }
        Ok(())
    }

    /// `len` of the driver's bytes from `offset` on, where they lie.
    pub fn readable_slices(&self, offset: usize, len: usize) -> Result<Vec<VolatileSlice<'q>>, RingError> {
        slices(self.memory, &sub_range(&self.segments.readable, offset, len)?)
    }

    /// `len` bytes that the device may write, from `offset` on, where they lie.
    pub fn writable_slices(&self, offset: usize, len: usize) -> Result<Vec<VolatileSlice<'q>>, RingError> {
        slices(self.memory, &sub_range(&self.segments.writable, offset, len)?)
    }

    /// Returns the chain to the driver; the device has written the first `written` of the writable bytes.
    pub fn complete(mut self, written: u32) -> Result<(), RingError> {
        self.returned = true;
        self.queue.add_used(self.memory, self.head, written).map_err(|source| RingError::Rings { source })
    }

    /// Leaves the chain in the available ring: the next pop finds it again.
    pub fn put_back(mut self) {
        self.returned = true;
        self.queue.go_to_previous_position();
    }
}

impl Drop for Chain<'_> {
    fn drop(&mut self) {
        if !self.returned {
            // Fails only if the rings are not in memory, and then the next pop says so.
            drop(self.queue.add_used(self.memory, self.head, 0));
        }
    }
}

/// The host's view of `segments`; more slices than segments where a segment crosses memory regions.
pub fn slices<'m>(memory: &'m GuestMemory, segments: &[Segment]) -> Result<Vec<VolatileSlice<'m>>, RingError> {
    let failed = |source| RingError::Memory { source };
    let mut all = Vec::with_capacity(segments.len());
    for segment in segments {
        let len = usize::try_from(segment.len)
            .map_err(|_| RingError::OutsideMemory { address: segment.address.0, len: segment.len })?;
        let iter = vm_memory::GuestMemory::get_slices(memory, segment.address, len, Permissions::ReadWrite);
        for slice in iter.map_err(failed)? {
            all.push(slice.map_err(failed)?);
        }
    }
    Ok(all)
}

impl ActiveQueue {
    /// Takes the next available chain.
    pub fn pop<'q>(&'q mut self, memory: &'q GuestMemory) -> Result<Option<Chain<'q>>, RingError> {
        let rings = |source| RingError::Rings { source };
        let Some(head) = self.queue.iter(memory).map_err(rings)?.next().map(|chain| chain.head_index()) else {
            return Ok(None);
        };
        let table = GuestAddress(self.queue.desc_table());
        let segments = Segments::walk(memory, table, self.queue.size(), head)?;
        Ok(Some(Chain { queue: &mut self.queue, memory, head, segments, returned: false }))
    }

    /// Takes back the driver's wake-up.
    pub fn acknowledge_kick(&self) {
        // Nothing to read is no harm: the wake-up was for what has been served already.
        drop(self.kick.read());
    }

    /// Interrupts the driver if it wants to know about what was added to the used ring since the last call.
    pub fn notify(&mut self, memory: &GuestMemory, interrupt: &dyn Interrupt) -> Result<(), RingError> {
        if self.needs_interrupt(memory)? {
            interrupt.queue(self.index);
        }
        Ok(())
    }

    fn needs_interrupt(&mut self, memory: &GuestMemory) -> Result<bool, RingError> {
        if self.queue.event_idx_enabled() {
            return self.queue.needs_notification(memory).map_err(|source| RingError::Rings { source });
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        let flags: u16 = memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(|source| RingError::Memory { source })?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// Asks the driver for a kick when it next makes a chain available. True: there is one already.
    pub fn enable_kicks(&mut self, memory: &GuestMemory) -> Result<bool, RingError> {
        self.queue.enable_notification(memory).map_err(|source| RingError::Rings { source })
    }

    /// Tells the driver that it need not kick.
    pub fn disable_kicks(&mut self, memory: &GuestMemory) -> Result<(), RingError> {
        self.queue.disable_notification(memory).map_err(|source| RingError::Rings { source })
    }

    /// Hands every available chain to `each`, until there is none, then interrupts the driver if it wants that.
    ///
    /// After a queue's worth of chains it wakes itself through the kick and returns, so that a driver that never stops
    /// cannot keep the worker from its other events.
    pub fn serve(
        &mut self,
        memory: &GuestMemory,
        interrupt: &dyn Interrupt,
        mut each: impl FnMut(Chain<'_>) -> Result<(), RingError>,
    ) -> Result<(), RingError> {
        let size = self.queue.size();
        let mut budget = size;
        loop {
            self.disable_kicks(memory)?;
            while budget > 0 {
                let Some(chain) = self.pop(memory)? else { break };
                each(chain)?;
                budget = budget.saturating_sub(1);
            }
            let more = self.enable_kicks(memory)?;
            if more && budget > 0 {
                continue;
            }
            if more {
                // Fails only when the counter is full, and then the worker is about to come back anyway.
                drop(self.kick.write(1));
            }
            return if budget == size { Ok(()) } else { self.notify(memory, interrupt) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use virtio_bindings::virtio_ring::{
        VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    };

    use super::*;
    use crate::test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory};

    const NEXT: u16 = VRING_DESC_F_NEXT as u16;
    const WRITE: u16 = VRING_DESC_F_WRITE as u16;
    const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

    fn set_up(features: u64) -> (Arc<GuestMemory>, DriverQueue, ActiveQueue) {
        let memory = memory(0x2_0000).unwrap();
        let driver = DriverQueue::new(memory.clone(), 0x1000, 8);
        let queue = driver.activate(3, features).unwrap();
        (memory, driver, queue)
    }

    fn walk_one(descriptors: &[Descriptor]) -> Result<Segments, RingError> {
        let (memory, driver, _queue) = set_up(0);
        for (index, descriptor) in (0..).zip(descriptors) {
            driver.set_descriptor(index, *descriptor).unwrap();
        }
        Segments::walk(&memory, GuestAddress(0x1000), 8, 0)
    }

    #[test]
    fn bytes_travel_across_segments() {
        let (memory, mut driver, mut queue) = set_up(0);
        memory.write_slice(b"abcdef", GuestAddress(0x8000)).unwrap();
        let head = driver
            .add(&[
                Buffer::readable(0x8000, 2),
                Buffer::readable(0x8002, 4),
                Buffer::writable(0x9000, 3),
                Buffer::writable(0xa000, 5),
            ])
            .unwrap();
        let chain = queue.pop(&memory).unwrap().unwrap();
        assert_eq!((chain.readable_len(), chain.writable_len()), (6, 8));
        let mut bytes = [0; 4];
        chain.read(1, &mut bytes).unwrap();
        assert_eq!(&bytes, b"bcde");
        chain.write(1, b"12345").unwrap();
        assert!(matches!(chain.read(3, &mut bytes), Err(RingError::BeyondChain { offset: 3, wanted: 4, len: 6 })));
        assert!(matches!(chain.write(usize::MAX, b"x"), Err(RingError::BeyondChain { .. })));
        chain.complete(6).unwrap();
        assert_eq!(driver.used().unwrap(), Some((head, 6)));
        let mut written = [0; 3];
        memory.read_slice(&mut written, GuestAddress(0x9000)).unwrap();
        assert_eq!(&written, b"\x0012");
        memory.read_slice(&mut written, GuestAddress(0xa000)).unwrap();
        assert_eq!(&written, b"345");
    }

    #[test]
    fn a_dropped_chain_goes_back_to_the_used_ring() {
        let (memory, mut driver, mut queue) = set_up(0);
        let head = driver.add(&[Buffer::readable(0x8000, 2)]).unwrap();
        drop(queue.pop(&memory).unwrap().unwrap());
        assert_eq!(driver.used().unwrap(), Some((head, 0)));
        assert!(queue.pop(&memory).unwrap().is_none());
    }

    #[test]
    fn a_chain_that_is_put_back_is_popped_again() {
        let (memory, mut driver, mut queue) = set_up(0);
        driver.add(&[Buffer::readable(0x8000, 2)]).unwrap();
        queue.pop(&memory).unwrap().unwrap().put_back();
        assert_eq!(driver.used().unwrap(), None);
        assert_eq!(queue.pop(&memory).unwrap().unwrap().readable_len(), 2);
    }

    #[test]
    fn chains_that_no_driver_may_make_are_refused() {
        let looped = [Descriptor::new(0x8000, 1, NEXT, 1), Descriptor::new(0x8000, 1, NEXT, 0)];
        assert!(matches!(walk_one(&looped), Err(RingError::TooLong { .. })));
        let out_of_table = [Descriptor::new(0x8000, 1, NEXT, 8)];
        assert!(matches!(walk_one(&out_of_table), Err(RingError::Index { index: 8, size: 8 })));
        let out_of_memory = [Descriptor::new(0x1_ffff, 2, 0, 0)];
        assert!(matches!(walk_one(&out_of_memory), Err(RingError::OutsideMemory { .. })));
        let wrapping = [Descriptor::new(u64::MAX, 2, 0, 0)];
        assert!(matches!(walk_one(&wrapping), Err(RingError::OutsideMemory { .. })));
        let out_of_order = [Descriptor::new(0x8000, 1, NEXT | WRITE, 1), Descriptor::new(0x8000, 1, 0, 0)];
        assert!(matches!(walk_one(&out_of_order), Err(RingError::Order)));
    }

    #[test]
    fn heads_beyond_the_table_are_refused() {
        let (memory, mut driver, mut queue) = set_up(0);
        driver.offer(8).unwrap();
        assert!(matches!(queue.pop(&memory), Err(RingError::Index { index: 8, size: 8 })));
    }

    #[test]
    fn more_available_chains_than_entries_are_refused() {
        let (memory, driver, mut queue) = set_up(0);
        driver.set_avail_index(9).unwrap();
        assert!(matches!(queue.pop(&memory), Err(RingError::Rings { .. })));
    }

    #[test]
    fn an_indirect_table_is_walked() {
        let (memory, driver, _queue) = set_up(0);
        for (at, descriptor) in
            [(0x8000, Descriptor::new(0x9000, 4, NEXT, 1)), (0x8010, Descriptor::new(0xa000, 8, WRITE, 0))]
        {
            memory.write_obj(RawDescriptor::from(descriptor), GuestAddress(at)).unwrap();
        }
        driver.set_descriptor(0, Descriptor::new(0x8000, 32, INDIRECT, 0)).unwrap();
        let segments = Segments::walk(&memory, GuestAddress(0x1000), 8, 0).unwrap();
        assert_eq!(segments.readable, [Segment { address: GuestAddress(0x9000), len: 4 }]);
        assert_eq!(segments.writable, [Segment { address: GuestAddress(0xa000), len: 8 }]);
        // The table ends before the descriptor that the first one names.
        driver.set_descriptor(0, Descriptor::new(0x8000, 16, INDIRECT, 0)).unwrap();
        let short = Segments::walk(&memory, GuestAddress(0x1000), 8, 0);
        assert!(matches!(short, Err(RingError::Index { index: 1, size: 1 })));
    }

    #[test]
    fn bad_indirect_tables_are_refused() {
        for (len, flags) in [(0, INDIRECT), (17, INDIRECT), (16, INDIRECT | NEXT), (0x10_0000, INDIRECT)] {
            let result = walk_one(&[Descriptor::new(0x8000, len, flags, 1)]);
            assert!(matches!(result, Err(RingError::Indirect { .. })), "{len} {flags}");
        }
        // Descriptor 0 names the table that it lies in.
        let nested = walk_one(&[Descriptor::new(0x1000, 16, INDIRECT, 0)]);
        assert!(matches!(nested, Err(RingError::Indirect { .. })));
        let outside = walk_one(&[Descriptor::new(u64::MAX - 0xf, 32, INDIRECT, 0)]);
        assert!(matches!(outside, Err(RingError::Table { .. })));
    }

    #[test]
    fn lengths_that_add_up_to_more_than_4_gib_are_refused() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 3 << 30)]).unwrap();
        for (at, next) in [(0x1000, 1), (0x1010, 0)] {
            let descriptor = Descriptor::new(0, 2 << 30, if next == 1 { NEXT } else { 0 }, next);
            memory.write_obj(RawDescriptor::from(descriptor), GuestAddress(at)).unwrap();
        }
        let result = Segments::walk(&memory, GuestAddress(0x1000), 8, 0);
        assert!(matches!(result, Err(RingError::TooMany)));
    }

    #[test]
    fn serving_answers_everything_and_interrupts_once() {
        let (memory, mut driver, mut queue) = set_up(0);
        let (interrupt, signals) = TestInterrupt::new();
        for _ in 0..3 {
            driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
        }
        queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
        assert_eq!(signals.try_iter().collect::<Vec<_>>(), [Signal::Queue(3)]);
        assert_eq!(std::iter::from_fn(|| driver.used().unwrap()).count(), 3);
        assert!(queue.kick.read().is_err());
        // A kick for nothing is answered by nothing.
        queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
        assert_eq!(signals.try_iter().count(), 0);
    }

    #[test]
    fn a_driver_that_wants_no_interrupt_gets_none() {
        let (memory, mut driver, mut queue) = set_up(0);
        let (interrupt, signals) = TestInterrupt::new();
        driver.suppress_interrupts(true).unwrap();
        driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
        queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
        assert_eq!(signals.try_iter().count(), 0);
    }

    #[test]
    fn with_event_idx_the_driver_says_when_it_wants_to_know() {
        let (memory, mut driver, mut queue) = set_up(1 << VIRTIO_RING_F_EVENT_IDX);
        let (interrupt, signals) = TestInterrupt::new();
        driver.set_used_event(1).unwrap();
        for expected in [0, 1, 0] {
            driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
            queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
            assert_eq!(signals.try_iter().count(), expected);
        }
    }

    #[test]
    fn a_driver_that_never_stops_is_served_a_queue_at_a_time() {
        let (memory, mut driver, mut queue) = set_up(0);
        let (interrupt, signals) = TestInterrupt::new();
        let mut served = 0;
        driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
        queue
            .serve(&memory, interrupt.as_ref(), |chain| {
                served += 1;
                driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
                chain.complete(2)
            })
            .unwrap();
        assert_eq!(served, 8);
        assert_eq!(queue.kick.read().unwrap(), 1);
        assert_eq!(signals.try_iter().count(), 1);
    }
}
