//! A shared filesystem. Section 5.11.
//!
//! The device knows nothing of files: it carries FUSE requests to a server (`dewar-fs`) over a unix socket, and replies
//! back, by the frames of [`dewar_vmm_api::fs_link`]. The server never sees guest memory; of a guest that breaks the
//! rings, nothing reaches it. When the server is gone, every request is answered with `EIO`.

mod handler;

use std::{io, os::unix::net::UnixStream, sync::Arc};

use dewar_virtio::{ActivateError, Activation, VirtioDevice, read_config_bytes, worker::Worker};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_FS,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

pub use self::handler::Counters;
use self::handler::{FsHandler, Link};

/// Urgent requests (forget, interrupt), and all others.
const QUEUE_SIZES: [u16; 2] = [64, 128];
/// Bytes of the tag.
pub const TAG_SIZE: usize = 36;

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    #[error("The tag {tag:?} of a shared filesystem has not 1 to {TAG_SIZE} bytes")]
    Tag { tag: String },
    #[error("Could not prepare the connection to the filesystem's server")]
    Server { source: io::Error },
}

/// The device.
pub struct Fs {
    config: [u8; TAG_SIZE + 4],
    counters: Arc<Counters>,
    /// With the worker while the device is active.
    link: Option<Link>,
    worker: Option<Worker<FsHandler>>,
}

impl Fs {
    /// A filesystem that the guest mounts by its tag and that `server` answers for.
    pub fn new(tag: &str, server: UnixStream) -> Result<Self, FsError> {
        let mut config = [0; TAG_SIZE + 4];
        if tag.is_empty() || tag.len() > TAG_SIZE {
            return Err(FsError::Tag { tag: tag.to_owned() });
        }
        for (place, byte) in config.iter_mut().zip(tag.as_bytes()) {
            *place = *byte;
        }
        // One request queue.
        for (place, byte) in config.iter_mut().skip(TAG_SIZE).zip(1u32.to_le_bytes()) {
            *place = byte;
        }
        server.set_nonblocking(true).map_err(|source| FsError::Server { source })?;
        Ok(Self { config, counters: Arc::default(), link: Some(Link::new(server)), worker: None })
    }

    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_FS
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let queues = [activation.take_queue(0)?, activation.take_queue(1)?];
        let link = self.link.take().ok_or(ActivateError::AlreadyActive)?;
        let handler = FsHandler::new(queues, activation.memory, activation.interrupt, link, self.counters.clone());
        let worker = Worker::start("virtio-fs", handler, activation.broken);
        self.worker = Some(worker.map_err(|source| ActivateError::Worker { source })?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(handler) = self.worker.take().and_then(Worker::stop) {
            self.link = Some(handler.into_link());
        }
    }
}

#[cfg(test)]
mod tests;
