//! The driver's side of a queue, and an interrupt to wait for, for the unit tests of devices.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, Sender, channel},
    },
};

use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    device::{ActivateError, GuestMemory, Interrupt},
    queue::ActiveQueue,
    queue_config::QueueConfig,
};

/// Bytes that a [`DriverQueue`] takes for its three rings; its size is at most 256.
pub const RINGS_SIZE: u64 = 0x4000;

/// A buffer that the driver offers.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    pub writable: bool,
}

impl Buffer {
    #[must_use]
    pub fn readable(address: u64, len: u32) -> Self {
        Self { address, len, writable: false }
    }

    #[must_use]
    pub fn writable(address: u64, len: u32) -> Self {
        Self { address, len, writable: true }
    }
}

/// A virtqueue as a driver sees it. Descriptors are given out round robin and never awaited.
pub struct DriverQueue {
    memory: Arc<GuestMemory>,
    base: u64,
    size: u16,
    next_descriptor: u16,
    avail: u16,
    used: u16,
}

impl DriverQueue {
    /// The rings lie at `base` of guest memory, which is a multiple of 4096 and not 0.
    #[must_use]
    pub fn new(memory: Arc<GuestMemory>, base: u64, size: u16) -> Self {
        Self { memory, base, size, next_descriptor: 0, avail: 0, used: 0 }
    }

    fn desc_table(&self) -> u64 {
        self.base
    }

    fn avail_ring(&self) -> u64 {
        self.base.saturating_add(0x1000)
    }

    fn used_ring(&self) -> u64 {
        self.base.saturating_add(0x2000)
    }

    /// The set-up that the driver would give to the device.
    #[must_use]
    pub fn config(&self) -> QueueConfig {
        QueueConfig {
            size: self.size.into(),
            ready: true,
            desc_table: self.desc_table(),
            avail_ring: self.avail_ring(),
            used_ring: self.used_ring(),
            ..QueueConfig::new(self.size)
        }
    }

    /// The device's end of the queue.
    pub fn activate(&self, index: u16, features: u64) -> Result<ActiveQueue, ActivateError> {
        let queue =
            self.config().build(&self.memory, features).map_err(|source| ActivateError::Queue { index, source })?;
        let kick = EventFd::new(EFD_NONBLOCK).map_err(|source| ActivateError::EventFd { source })?;
        Ok(ActiveQueue { index, queue, kick })
    }

    /// Writes descriptor `index` as it is given.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) -> Result<(), GuestMemoryError> {
        let offset = u64::from(index).saturating_mul(16);
        let address = GuestAddress(self.desc_table().saturating_add(offset));
        self.memory.write_obj(RawDescriptor::from(descriptor), address)
    }

    /// Makes `head` available, whatever it is.
    pub fn offer(&mut self, head: u16) -> Result<(), GuestMemoryError> {
        let slot = u64::from(self.avail.checked_rem(self.size).unwrap_or_default());
        let entry = self.avail_ring().saturating_add(4).saturating_add(slot.saturating_mul(2));
        self.memory.write_obj(head.to_le(), GuestAddress(entry))?;
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail)
    }

    /// Writes the index of the available ring, whatever it is.
    pub fn set_avail_index(&self, index: u16) -> Result<(), GuestMemoryError> {
        let address = GuestAddress(self.avail_ring().saturating_add(2));
        self.memory.store(index.to_le(), address, Ordering::SeqCst)
    }

    /// Makes a chain of `buffers` available and returns its head.
    pub fn add(&mut self, buffers: &[Buffer]) -> Result<u16, GuestMemoryError> {
        let head = self.next_descriptor;
        let mut left = buffers.len();
        for buffer in buffers {
            left = left.saturating_sub(1);
            let index = self.next_descriptor;
            self.next_descriptor = index.wrapping_add(1).checked_rem(self.size).unwrap_or_default();
            let write = if buffer.writable { VRING_DESC_F_WRITE } else { 0 };
            let next = if left == 0 { 0 } else { VRING_DESC_F_NEXT };
            let flags = u16::try_from(write | next).unwrap_or_default();
            self.set_descriptor(index, Descriptor::new(buffer.address, buffer.len, flags, self.next_descriptor))?;
        }
        self.offer(head)?;
        Ok(head)
    }

    /// The next entry of the used ring, as (head, bytes written).
    pub fn used(&mut self) -> Result<Option<(u16, u32)>, GuestMemoryError> {
        let index: u16 = self.memory.load(GuestAddress(self.used_ring().saturating_add(2)), Ordering::SeqCst)?;
        if u16::from_le(index) == self.used {
            return Ok(None);
        }
        let slot = u64::from(self.used.checked_rem(self.size).unwrap_or_default());
        let entry = self.used_ring().saturating_add(4).saturating_add(slot.saturating_mul(8));
        let head: u32 = self.memory.read_obj(GuestAddress(entry))?;
        let len: u32 = self.memory.read_obj(GuestAddress(entry.saturating_add(4)))?;
        self.used = self.used.wrapping_add(1);
        Ok(Some((u16::try_from(u32::from_le(head)).unwrap_or(u16::MAX), u32::from_le(len))))
    }

    /// Sets `VRING_AVAIL_F_NO_INTERRUPT` or clears it.
    pub fn suppress_interrupts(&self, suppress: bool) -> Result<(), GuestMemoryError> {
        self.memory.write_obj(u16::from(suppress).to_le(), GuestAddress(self.avail_ring()))
    }

    /// Asks for an interrupt once the used index passes `index` (`VIRTIO_F_EVENT_IDX`).
    pub fn set_used_event(&self, index: u16) -> Result<(), GuestMemoryError> {
        let offset = u64::from(self.size).saturating_mul(2).saturating_add(4);
        self.memory.write_obj(index.to_le(), GuestAddress(self.avail_ring().saturating_add(offset)))
    }
}

/// What a device has signalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Queue(u16),
    Config,
}

/// An interrupt whose signals a test can wait for.
pub struct TestInterrupt {
    sender: Mutex<Sender<Signal>>,
}

impl TestInterrupt {
    #[must_use]
    pub fn new() -> (Arc<Self>, Receiver<Signal>) {
        let (sender, receiver) = channel();
        (Arc::new(Self { sender: Mutex::new(sender) }), receiver)
    }

    fn send(&self, signal: Signal) {
        // A test that has stopped listening is no matter.
        let _ = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(signal);
    }
}

impl Interrupt for TestInterrupt {
    fn queue(&self, index: u16) {
        self.send(Signal::Queue(index));
    }

    fn config(&self) {
        self.send(Signal::Config);
    }
}

/// Zeroed guest memory of `size` bytes from address 0 on.
pub fn memory(size: usize) -> io::Result<Arc<GuestMemory>> {
    GuestMemory::from_ranges(&[(GuestAddress(0), size)]).map(Arc::new).map_err(io::Error::other)
}
