//! A queue while the driver sets it up. It becomes a running [`Queue`] only through [`QueueConfig::build`], which checks
//! everything that the driver claimed about it. Section 2.7.

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::device::{GuestMemory, has_feature};

/// What the driver has said about a queue; nothing of it is checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueConfig {
    /// The device's own limit; 0 if the device has no such queue.
    pub max_size: u16,
    /// Entries.
    pub size: u32,
    pub ready: bool,
    /// Guest-physical.
    pub desc_table: u64,
    /// Guest-physical.
    pub avail_ring: u64,
    /// Guest-physical.
    pub used_ring: u64,
    /// Where walking both rings starts: 0, unless the queue goes on after a stop.
    pub next: u16,
}

/// What is wrong with a driver's set-up of a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueConfigError {
    #[error("A queue size of {size} is not a power of two up to {max}")]
    Size { size: u32, max: u16 },
    #[error("The {ring} at guest address {address:#x} is misaligned")]
    Misaligned { ring: &'static str, address: u64 },
    #[error("The rings of {size} entries do not lie in guest memory")]
    OutsideMemory { size: u32 },
}

impl QueueConfig {
    #[must_use]
    pub fn new(max_size: u16) -> Self {
        Self { max_size, size: 0, ready: false, desc_table: 0, avail_ring: 0, used_ring: 0, next: 0 }
    }

    /// Checks the set-up and makes a queue of it.
    pub fn build(&self, memory: &GuestMemory, features: u64) -> Result<Queue, QueueConfigError> {
        let bad_size = || QueueConfigError::Size { size: self.size, max: self.max_size };
        let misaligned = |ring, address| move |_| QueueConfigError::Misaligned { ring, address };
        let size = u16::try_from(self.size).map_err(|_| bad_size())?;
        let mut queue = Queue::new(self.max_size).map_err(|_| bad_size())?;
        queue.try_set_size(size).map_err(|_| bad_size())?;
        queue
            .try_set_desc_table_address(GuestAddress(self.desc_table))
            .map_err(misaligned("descriptor table", self.desc_table))?;
        queue
            .try_set_avail_ring_address(GuestAddress(self.avail_ring))
            .map_err(misaligned("available ring", self.avail_ring))?;
        queue
            .try_set_used_ring_address(GuestAddress(self.used_ring))
            .map_err(misaligned("used ring", self.used_ring))?;
        queue.set_event_idx(has_feature(features, VIRTIO_RING_F_EVENT_IDX));
        queue.set_next_avail(self.next);
        queue.set_next_used(self.next);
        queue.set_ready(true);
        // Address 0 is what virtio-queue takes for "never set".
        if self.avail_ring == 0 || !queue.is_valid(memory) {
            return Err(QueueConfigError::OutsideMemory { size: self.size });
        }
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap()
    }

    fn good() -> QueueConfig {
        QueueConfig {
            size: 16,
            ready: true,
            desc_table: 0x1000,
            avail_ring: 0x2000,
            used_ring: 0x3000,
            next: 7,
            ..QueueConfig::new(64)
        }
    }

    #[test]
    fn a_good_set_up_becomes_a_queue() {
        let queue = good().build(&memory(), 1 << VIRTIO_RING_F_EVENT_IDX).unwrap();
        assert_eq!((queue.size(), queue.next_avail(), queue.next_used()), (16, 7, 7));
        assert!(queue.event_idx_enabled());
        assert!(!good().build(&memory(), 0).unwrap().event_idx_enabled());
    }

    #[test]
    fn sizes_must_be_powers_of_two_up_to_the_devices_limit() {
        for size in [0, 3, 128, 0x1_0010] {
            let result = QueueConfig { size, ..good() }.build(&memory(), 0);
            assert!(matches!(result, Err(QueueConfigError::Size { .. })), "{size}");
        }
    }

    #[test]
    fn rings_must_be_aligned() {
        for config in [
            QueueConfig { desc_table: 0x1008, ..good() },
            QueueConfig { avail_ring: 0x2001, ..good() },
            QueueConfig { used_ring: 0x3002, ..good() },
        ] {
            assert!(matches!(config.build(&memory(), 0), Err(QueueConfigError::Misaligned { .. })), "{config:?}");
        }
    }

    #[test]
    fn rings_must_lie_in_memory() {
        for config in [
            QueueConfig { desc_table: 0xfff0, ..good() },
            QueueConfig { avail_ring: 0, ..good() },
            QueueConfig { avail_ring: 0xffff_ffff_ffff_fffe, ..good() },
            QueueConfig { used_ring: 0x1_0000, ..good() },
        ] {
            assert!(matches!(config.build(&memory(), 0), Err(QueueConfigError::OutsideMemory { .. })), "{config:?}");
        }
    }
}
