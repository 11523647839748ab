//! Containers as files.
//!
//! `<data>/containers/<id>/` holds `config.json` (what was asked for), `spec.json` (the OCI configuration
//! sent to the guest), `state.json` (replaced atomically by whoever owns the state: the creator until the first start, the
//! supervisor from then on), `log` and `scratch.img`. `<data>/containers/names/<name>` is a symlink to the id: making it
//! claims the name. A supervisor holds an exclusive lock on `lock` as long as it lives; a state that says "running"
//! with nobody holding the lock is what a crash left, and the next command that sees it puts it right. Whoever changes
//! limits (`limits`) holds the lock: the supervisor of a running container, else the one who asks.

mod config;
mod limits;
pub mod log;
mod store;

pub use config::{ContainerConfig, ContainerState, ImageRef, Status, Writable};
pub use store::{Container, ContainerStore};

/// A fresh id: 64 hexadecimal digits, as docker's.
#[must_use]
pub fn new_id() -> String {
    let mut bytes = [0u8; 32];
    crate::control::fill_random(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
