//! Virtio over memory-mapped registers. Section 4.2.2, version 2 of the layout.
//!
//! The owner serializes [`MmioTransport::read`] and [`MmioTransport::write`] (they come from vCPU threads). The interrupt
//! side is shared with the device's worker through atomics and an event descriptor, and needs no lock.

use std::{
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES, VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INT_CONFIG,
    VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE,
    VIRTIO_MMIO_QUEUE_AVAIL_HIGH, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_SHM_BASE_HIGH,
    VIRTIO_MMIO_SHM_BASE_LOW, VIRTIO_MMIO_SHM_LEN_HIGH, VIRTIO_MMIO_SHM_LEN_LOW, VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    device::{GuestMemory, Interrupt, VirtioDevice},
    lifecycle::Lifecycle,
};

/// Offset of the register whose writes are best turned into kicks by the hypervisor.
pub const QUEUE_NOTIFY: u64 = VIRTIO_MMIO_QUEUE_NOTIFY as u64;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
const LAYOUT_VERSION: u32 = 2;
/// "DEWR".
const VENDOR: u32 = 0x5257_4544;
/// What a shared memory region that does not exist reads as.
const NO_REGION: u32 = u32::MAX;

/// The device-to-driver direction.
#[derive(Debug)]
struct MmioInterrupt {
    status: AtomicU32,
    generation: AtomicU32,
    irq: EventFd,
}

impl MmioInterrupt {
    fn raise(&self, bit: u32) {
        self.status.fetch_or(bit, Ordering::SeqCst);
        // Fails only when the counter is full, and then an interrupt is on its way.
        drop(self.irq.write(1));
    }
}

impl Interrupt for MmioInterrupt {
    fn queue(&self, _index: u16) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }
}

/// A device behind a page of registers.
pub struct MmioTransport {
    lifecycle: Lifecycle,
    interrupt: Arc<MmioInterrupt>,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
}

impl MmioTransport {
    pub fn new(memory: Arc<GuestMemory>, device: Box<dyn VirtioDevice>) -> io::Result<Self> {
        let interrupt = Arc::new(MmioInterrupt {
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            irq: EventFd::new(EFD_NONBLOCK)?,
        });
        Ok(Self {
            lifecycle: Lifecycle::new(device, memory, interrupt.clone())?,
            interrupt,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
        })
    }

    /// The device ID of section 5.
    #[must_use]
    pub fn device_type(&self) -> u32 {
        self.lifecycle.device().device_type()
    }

    /// By queue index; written when the driver writes the index to [`QUEUE_NOTIFY`]. The same for the device's life.
    #[must_use]
    pub fn kicks(&self) -> &[EventFd] {
        self.lifecycle.kicks()
    }

    /// Written when the device interrupts the driver; to be injected as an edge. The same for the device's life.
    #[must_use]
    pub fn interrupt_fd(&self) -> &EventFd {
        &self.interrupt.irq
    }

    /// Why the device needs a reset, if it does: its start failed, or the driver has broken a ring.
    #[must_use]
    pub fn fault(&self) -> Option<&(dyn Error + 'static)> {
        self.lifecycle.fault()
    }

    /// How often the driver has done what it may not; such accesses are ignored.
    #[must_use]
    pub fn illegal_accesses(&self) -> u64 {
        self.lifecycle.illegal_writes()
    }

    /// Stops the device, as the driver's reset does. For the machine's end.
    pub fn reset(&mut self) {
        self.lifecycle.reset();
        self.interrupt.status.store(0, Ordering::SeqCst);
    }

    /// Reads `data.len()` bytes at `offset` of the register page.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            return self.lifecycle.device().read_config(offset, data);
        }
        match (u32::try_from(offset), <&mut [u8; 4]>::try_from(&mut *data)) {
            (Ok(register), Ok(word)) => *word = self.read_register(register).to_le_bytes(),
            _ => data.fill(0),
        }
    }

    /// Writes `data` at `offset` of the register page.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(VIRTIO_MMIO_CONFIG)) {
            return self.lifecycle.write_config(offset, data);
        }
        match (u32::try_from(offset), <[u8; 4]>::try_from(data)) {
            (Ok(register), Ok(word)) => self.write_register(register, u32::from_le_bytes(word)),
            _ => self.lifecycle.note_illegal_write(),
        }
    }

    fn read_register(&self, register: u32) -> u32 {
        let queue = self.lifecycle.queue(self.queue_select);
        match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => LAYOUT_VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device_type(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => half(self.lifecycle.offered_features(), self.device_features_select),
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |queue| u32::from(queue.max_size)),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |queue| u32::from(queue.ready)),
            VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status.load(Ordering::SeqCst),
            VIRTIO_MMIO_STATUS => self.lifecycle.status(),
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => NO_REGION,
            VIRTIO_MMIO_SHM_BASE_LOW | VIRTIO_MMIO_SHM_BASE_HIGH => NO_REGION,
            VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation.load(Ordering::SeqCst),
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u32, value: u32) {
        let queue = self.queue_select;
        let core = &mut self.lifecycle;
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => match self.driver_features_select {
                select @ (0 | 1) => core.set_driver_features(select == 1, value),
                // Bits from 64 on: none is offered, so none may be accepted.
                _ if value == 0 => {}
                _ => core.note_illegal_write(),
            },
            VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            VIRTIO_MMIO_QUEUE_NUM => core.configure_queue(queue, |q| q.size = value),
            VIRTIO_MMIO_QUEUE_READY => core.configure_queue(queue, |q| q.ready = value == 1),
            VIRTIO_MMIO_QUEUE_NOTIFY => core.kick(value),
            VIRTIO_MMIO_INTERRUPT_ACK => drop(self.interrupt.status.fetch_and(!value, Ordering::SeqCst)),
            VIRTIO_MMIO_STATUS if value == 0 => self.reset(),
            VIRTIO_MMIO_STATUS => core.write_status(value),
            VIRTIO_MMIO_QUEUE_DESC_LOW => core.configure_queue(queue, |q| set_low(&mut q.desc_table, value)),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => core.configure_queue(queue, |q| set_high(&mut q.desc_table, value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => core.configure_queue(queue, |q| set_low(&mut q.avail_ring, value)),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => core.configure_queue(queue, |q| set_high(&mut q.avail_ring, value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => core.configure_queue(queue, |q| set_low(&mut q.used_ring, value)),
            VIRTIO_MMIO_QUEUE_USED_HIGH => core.configure_queue(queue, |q| set_high(&mut q.used_ring, value)),
            _ => core.note_illegal_write(),
        }
    }
}

/// The 32 bits of `features` that `select` chooses.
fn half(features: u64, select: u32) -> u32 {
    let shifted = match select {
        0 => features,
        1 => features >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or_default()
}

fn set_low(address: &mut u64, value: u32) {
    *address = (*address & !u64::from(u32::MAX)) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = (*address & u64::from(u32::MAX)) | (u64::from(value) << 32);
}

#[cfg(test)]
mod tests;
