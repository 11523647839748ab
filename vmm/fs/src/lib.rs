//! The server behind a machine's virtio-fs device: directories and files of the host, reached by the guest's kernel as FUSE
//! requests.
//!
//! * [`file_system`]: a request in, a reply out; [`abi`] and [`wire`] say how they are written.
//! * [`tree`]: the made-up directory that the guest mounts, and its entries, which come and go.
//! * [`nodes`], [`handles`]: the files that the guest knows and has open, each a descriptor. No path is kept or walked: a
//!   lookup is one component below a descriptor ([`host`]), so a renamed directory or a symbolic link leads nowhere else.
//! * [`thread`]: as whom files are created.
//! * [`serve`], [`control`]: the socket to the device and that to the runtime.
//! * [`jail`]: what the process gives up before it reads the guest's first byte.
//!
//! The guest's kernel decides whether its processes may do what they ask for, by the owners and modes that it sees here; it
//! is the guest as a whole that is held to its entries and to what of them is read-only.
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

pub mod abi;
pub mod control;
pub mod file_system;
pub mod handles;
pub mod host;
pub mod jail;
pub mod nodes;
mod ops;
pub mod serve;
pub mod thread;
pub mod tree;
pub mod wire;

pub use file_system::{FileSystem, Limits};
