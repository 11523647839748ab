//! Virtio, once: what a device is, what a driver may do to it and when, how rings are walked, and the transports that
//! carry it.
//!
//! * [`device`]: the trait that every device implements, with its state diagram.
//! * [`status`]: the one status machine; [`lifecycle`] keeps a device, its status, features and queues together.
//! * [`queue`]: checked walking of rings. What the guest writes is an allegation until this module has checked it.
//! * [`worker`]: the one event loop that devices run in.
//! * [`transport`]: register layouts and sockets; they decode, and decide nothing.
//!
//! Knows neither KVM nor any device in particular. Implements the Virtual I/O Device (VIRTIO) specification, version
//! 1.2, without the legacy interface.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod device;
pub mod lifecycle;
pub mod queue;
pub mod queue_config;
pub mod status;
#[cfg(any(test, feature = "test-utils"))]
pub mod test_utils;
pub mod transport;
pub mod worker;

pub use device::{ActivateError, Activation, BrokenFlag, GuestMemory, Interrupt, VirtioDevice, read_config_bytes};
pub use queue::{ActiveQueue, Chain, HeldChain, RingError, Segment};
