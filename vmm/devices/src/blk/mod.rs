//! A disk. Section 5.2.
//!
//! * [`request`]: what a request says, checked; pure.
//! * [`disk`]: host files one behind the other; no virtio.
//! * [`handler`]: carries out requests, in the order in which they come, in one worker.
//!
//! Bytes move between the host's page cache and guest memory directly. A read-only disk is enforced here, whatever the
//! driver accepted.

pub mod disk;
pub mod handler;
pub mod request;

use std::{fs::File, sync::Arc};

use dewar_virtio::{ActivateError, Activation, VirtioDevice, read_config_bytes, worker::Worker};
use virtio_bindings::{
    virtio_blk::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
    },
    virtio_ids::VIRTIO_ID_BLOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use self::{
    disk::{Disk, DiskError},
    handler::{BlkHandler, Counters},
    request::{MAX_RANGE_SECTORS, MAX_RANGES, SECTOR_SIZE},
};

const QUEUE_SIZES: [u16; 1] = [256];

/// Data segments of a request: a queue's worth, without header and status.
const SEG_MAX: u32 = 254;

/// Physical blocks are 2 to the power of this many sectors.
const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
const SECTORS_PER_BLOCK: u32 = 8;

/// Bytes of `struct virtio_blk_config` up to the fields of the features offered.
const CONFIG_SIZE: usize = 60;

/// What the guest reads as the disk's serial has at most so many bytes.
pub const ID_SIZE: usize = 20;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BlkError {
    #[error("The disk's id {id:?} has more than {ID_SIZE} bytes")]
    IdTooLong { id: String },
    #[error("Opening the backing of disk {id:?} failed")]
    Disk { id: String, source: DiskError },
}

/// The device.
pub struct Blk {
    config: [u8; CONFIG_SIZE],
    read_only: bool,
    counters: Arc<Counters>,
    /// With the worker while the device is active.
    handler_parts: Option<Parts>,
    worker: Option<Worker<BlkHandler>>,
}

struct Parts {
    disk: Disk,
    id: [u8; ID_SIZE],
}

impl Blk {
    /// A disk of `files` one behind the other, each padded with zeros to a multiple of 4096 bytes. A writable disk has
    /// one file, of such a size.
    pub fn new(files: Vec<File>, read_only: bool, id: &str) -> Result<Self, BlkError> {
        let mut id_bytes = [0; ID_SIZE];
        let place = id_bytes.get_mut(..id.len()).ok_or_else(|| BlkError::IdTooLong { id: id.to_owned() })?;
        place.copy_from_slice(id.as_bytes());
        let disk = Disk::new(files, read_only).map_err(|source| BlkError::Disk { id: id.to_owned(), source })?;
        Ok(Self {
            config: config_space(disk.size() / SECTOR_SIZE),
            read_only,
            counters: Arc::default(),
            handler_parts: Some(Parts { disk, id: id_bytes }),
            worker: None,
        })
    }

    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

fn config_space(sectors: u64) -> [u8; CONFIG_SIZE] {
    let max_ranges = u32::try_from(MAX_RANGES).unwrap_or(1);
    let mut config = [0; CONFIG_SIZE];
    put(&mut config, 0, &sectors.to_le_bytes());
    put(&mut config, 12, &SEG_MAX.to_le_bytes());
    put(&mut config, 20, &512u32.to_le_bytes());
    put(&mut config, 24, &[PHYSICAL_BLOCK_EXPONENT]);
    // Smallest and best I/O size, in logical blocks.
    put(&mut config, 26, &8u16.to_le_bytes());
    put(&mut config, 28, &0u32.to_le_bytes());
    // One queue.
    put(&mut config, 34, &1u16.to_le_bytes());
    put(&mut config, 36, &MAX_RANGE_SECTORS.to_le_bytes());
    put(&mut config, 40, &max_ranges.to_le_bytes());
    put(&mut config, 44, &SECTORS_PER_BLOCK.to_le_bytes());
    put(&mut config, 48, &MAX_RANGE_SECTORS.to_le_bytes());
    put(&mut config, 52, &max_ranges.to_le_bytes());
    // Zeroing may give blocks back to the host.
    put(&mut config, 56, &[1]);
    config
}

fn put(config: &mut [u8; CONFIG_SIZE], offset: usize, field: &[u8]) {
    for (place, byte) in config.iter_mut().skip(offset).zip(field) {
        *place = *byte;
    }
}

impl VirtioDevice for Blk {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_BLOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let always = [
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_RING_F_INDIRECT_DESC,
        ];
        let writable = [VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
        let depending: &[u32] = if self.read_only { &[VIRTIO_BLK_F_RO] } else { &writable };
        always.iter().chain(depending).fold(0, |features, bit| features | (1 << bit))
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let queue = activation.take_queue(0)?;
        let Parts { disk, id } = self.handler_parts.take().ok_or(ActivateError::AlreadyActive)?;
        let handler = BlkHandler::new(queue, activation.memory, activation.interrupt, disk, id, self.counters.clone());
        let worker = Worker::start("virtio-blk", handler, activation.broken);
        self.worker = Some(worker.map_err(|source| ActivateError::Worker { source })?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(handler) = self.worker.take().and_then(Worker::stop) {
            let (disk, id) = handler.into_parts();
            self.handler_parts = Some(Parts { disk, id });
        }
    }
}

#[cfg(test)]
mod tests;
