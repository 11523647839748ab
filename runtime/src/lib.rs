//! All host logic of Dewar: images, containers, engines, the supervisor.
//!
//! There is no daemon. A container is a folder of files ([`container`]); while it runs, one supervisor process
//! ([`supervisor`]) owns its machine ([`engine`]), its connection to the guest's agent, its stdio and its exit status, and
//! answers other processes on a unix socket ([`control`]). [`Runtime`] is what front ends use.
//!
//! Written synchronously, with a thread for each stream: a sandbox has few, and each mostly sleeps in the kernel.

pub mod container;
pub mod control;
pub mod doctor;
pub mod engine;
mod error;
pub mod images;
pub mod oci;
mod paths;
mod runtime;
mod shared_fs;
pub mod spec;
pub mod supervisor;
pub mod trace;

pub use error::{Error, ErrorKind, ResultExt};
pub use paths::Paths;
pub use runtime::{CreateOptions, Runtime, host_files, machine_memory_mib, machine_vcpus};
