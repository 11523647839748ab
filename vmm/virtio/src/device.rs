//! What a virtio device is, to the transport that carries it. Section 2 of the specification.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::queue::{ActiveQueue, RingError};

/// The guest's physical memory, shared as `Arc<GuestMemory>`.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// How a device tells the driver that something happened. Implemented by transports; called from the device's worker.
pub trait Interrupt: Send + Sync {
    /// Says that the used ring of queue `index` has grown.
    fn queue(&self, index: u16);
    /// Says that the configuration space, or the device status, has changed.
    fn config(&self);
}

/// A virtio device.
///
/// ```text
///             ┌──────────── reset() ────────────┐
///             ▼                                 │
///  new ──▶ inactive ── activate() is Ok ──▶  active ── broken.set() ──▶ broken
///             │ ▲                                                          │
///             │ └──────────────────────── reset() ─────────────────────────┘
///             └─ activate() is Err: stays inactive, the transport reports that the device needs a reset
/// ```
///
/// The transport calls every function from one thread at a time. `activate` is called in the inactive state only;
/// `reset` in any state. Queues belong to the device while it is active. When `reset` returns, no thread of the device
/// touches guest memory any more, and every chain that was popped has been returned to its used ring.
pub trait VirtioDevice: Send {
    /// The device ID of section 5.
    fn device_type(&self) -> u32;

    /// The largest size of each queue, all powers of two.
    fn queue_sizes(&self) -> &[u16];

    /// The feature bits offered. `VIRTIO_F_VERSION_1` is added by the transport.
    fn features(&self) -> u64;

    /// Fills `data` from `offset` of the configuration space; bytes outside of it read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes to the configuration space. Fields that the driver may not write are left as they are.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Starts the device on queues that the driver has set up.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Stops the worker, and joins it.
    fn reset(&mut self);
}

/// What a device gets for as long as it is active.
pub struct Activation {
    pub memory: Arc<GuestMemory>,
    /// The queues that the driver has made ready, by increasing index; there may be fewer than the device has.
    pub queues: Vec<ActiveQueue>,
    pub interrupt: Arc<dyn Interrupt>,
    /// The negotiated feature bits.
    pub features: u64,
    pub broken: BrokenFlag,
}

impl Activation {
    /// Removes and returns the queue with this index.
    pub fn take_queue(&mut self, index: u16) -> Result<ActiveQueue, ActivateError> {
        let position = self.queues.iter().position(|queue| queue.index == index);
        position.map(|at| self.queues.remove(at)).ok_or(ActivateError::MissingQueue { index })
    }
}

/// Whether `features` has `bit`.
#[must_use]
pub(crate) fn has_feature(features: u64, bit: u32) -> bool {
    1u64.checked_shl(bit).is_some_and(|mask| features & mask != 0)
}

/// Why a device could not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    #[error("Queue {index} is needed and was not set up by the driver")]
    MissingQueue { index: u16 },
    #[error("The set-up of queue {index} is invalid")]
    Queue { index: u16, source: crate::queue_config::QueueConfigError },
    #[error("Starting the device's worker failed")]
    Worker { source: io::Error },
    #[error("Duplicating an event descriptor failed")]
    EventFd { source: io::Error },
    #[error("The device is already active")]
    AlreadyActive,
    #[error("Preparing {what} failed")]
    Backend { what: &'static str, source: io::Error },
}

/// Set by a device when the driver has broken a ring. The transport then reports `DEVICE_NEEDS_RESET`.
///
/// Clones share one flag. There is a new flag for each activation.
#[derive(Clone)]
pub struct BrokenFlag {
    shared: Arc<BrokenShared>,
}

struct BrokenShared {
    set: AtomicBool,
    cause: OnceLock<RingError>,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl BrokenFlag {
    /// `notify` is called once, when the flag is set for the first time, in the thread that sets it.
    pub fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        let shared = BrokenShared { set: AtomicBool::new(false), cause: OnceLock::new(), notify: Box::new(notify) };
        Self { shared: Arc::new(shared) }
    }

    pub fn set(&self) {
        if !self.shared.set.swap(true, Ordering::AcqRel) {
            (self.shared.notify)();
        }
    }

    /// Sets the flag and says why; the first cause is kept.
    pub fn set_because(&self, cause: RingError) {
        // A second cause is a consequence of the first.
        drop(self.shared.cause.set(cause));
        self.set();
    }

    #[must_use]
    pub fn cause(&self) -> Option<&RingError> {
        self.shared.cause.get()
    }

    #[must_use]
    pub fn is_set(&self) -> bool {
        self.shared.set.load(Ordering::Acquire)
    }
}

/// Copies what `config` has at `offset` to `data`, and zeros for what lies behind its end.
pub fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|start| config.get(start..)).unwrap_or(&[]);
    let mut bytes = rest.iter().copied();
    for byte in data {
        *byte = bytes.next().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn a_broken_flag_notifies_once() {
        let count = Arc::new(AtomicUsize::new(0));
        let flag = BrokenFlag::new({
            let count = count.clone();
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        assert!(!flag.is_set());
        flag.clone().set_because(RingError::Order);
        flag.set_because(RingError::TooMany);
        flag.set();
        assert!(flag.is_set());
        assert!(matches!(flag.cause(), Some(RingError::Order)));
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn configuration_behind_the_end_reads_as_zero() {
        let mut data = [0xff; 4];
        read_config_bytes(&[1, 2, 3], 1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        read_config_bytes(&[1, 2, 3], u64::MAX, &mut data);
        assert_eq!(data, [0; 4]);
    }

    #[test]
    fn feature_bits_beyond_the_word_are_absent() {
        assert!(has_feature(1 << 29, 29));
        assert!(!has_feature(1 << 29, 28));
        assert!(!has_feature(u64::MAX, 64));
    }
}
