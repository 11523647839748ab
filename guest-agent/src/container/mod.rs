//! Containers: what they are to be ([`plan`], [`process`], [`mounts`], [`namespaces`], [`hooks`]), what they stand on ([`rootfs`],
//! [`shared`], [`memory`], [`notify`], [`sandbox`]), their streams ([`stdio`]), and how their processes are made ([`spawn`], [`usher`]).

pub mod hooks;
pub mod memory;
pub mod mounts;
pub mod namespaces;
pub mod notify;
pub mod plan;
pub mod process;
pub mod reading;
pub mod rootfs;
pub mod sandbox;
pub mod shared;
pub mod spawn;
pub mod stdio;
pub mod usher;
