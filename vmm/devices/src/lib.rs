//! Virtio devices, one folder each, and the serial port.
//!
//! Knows no KVM and no transport: a device gets checked queues and an [`Interrupt`](dewar_virtio::Interrupt), and the
//! serial port a trait of its own. Each device runs in one [`Worker`](dewar_virtio::worker::Worker).
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

pub mod blk;
pub mod console;
pub mod counter;
pub mod fs;
pub mod rng;
pub mod serial;
pub mod sink;
pub mod vsock;
