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
fn total_len(segments: &[Segment]) -> usize {
    segments.iter().fold(0usize, |sum, segment| sum.saturating_add(usize::try_from(segment.len).unwrap_or(usize::MAX)))
}

/// The part of `segments` that starts at `offset` and has `len` bytes.
fn sub_range(segments: &[Segment], offset: usize, len: usize) -> Result<Vec<Segment>, RingError> {
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

fn read_segments(memory: &GuestMemory, from: &[Segment], offset: usize, buffer: &mut [u8]) -> Result<(), RingError> {
    let mut rest = buffer;
    for slice in slices(memory, &sub_range(from, offset, rest.len())?)? {
        let copied = slice.copy_to(rest);
        rest = rest.get_mut(copied..).unwrap_or_default();
    }
    Ok(())
}

fn write_segments(memory: &GuestMemory, to: &[Segment], offset: usize, bytes: &[u8]) -> Result<(), RingError> {
    let mut rest = bytes;
    for slice in slices(memory, &sub_range(to, offset, bytes.len())?)? {
        slice.copy_from(rest);
        rest = rest.get(slice.len()..).unwrap_or_default();
    }
    Ok(())
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
        read_segments(self.memory, &self.segments.readable, offset, buffer)
    }

    /// Copies all of `bytes` to what the device may write, from `offset` on.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), RingError> {
        write_segments(self.memory, &self.segments.writable, offset, bytes)
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

impl Chain<'_> {
    /// Keeps the chain while other chains are served; [`ActiveQueue::answer`] returns it.
    pub fn hold(mut self) -> HeldChain {
        self.returned = true;
        HeldChain { head: self.head, segments: std::mem::take(&mut self.segments) }
    }
}

/// A chain that is with the device beyond the next pop. It must be given back by [`ActiveQueue::answer`].
#[must_use = "a chain that is not answered is lost to the driver"]
#[derive(Debug)]
pub struct HeldChain {
    head: u16,
    segments: Segments,
}

impl HeldChain {
    /// Bytes that the driver wrote.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        total_len(&self.segments.readable)
    }

    /// Copies the driver's bytes from `offset` on to all of `buffer`.
    pub fn read(&self, memory: &GuestMemory, offset: usize, buffer: &mut [u8]) -> Result<(), RingError> {
        read_segments(memory, &self.segments.readable, offset, buffer)
    }

    /// Bytes that the device may write.
    #[must_use]
    pub fn writable_len(&self) -> usize {
        total_len(&self.segments.writable)
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

    /// Writes `bytes` to a held chain of this queue and returns it to the driver.
    pub fn answer(&mut self, memory: &GuestMemory, held: HeldChain, bytes: &[u8]) -> Result<(), RingError> {
        write_segments(memory, &held.segments.writable, 0, bytes)?;
        let written = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.queue.add_used(memory, held.head, written).map_err(|source| RingError::Rings { source })
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
mod tests;
