//! Containers: what they are to be ([`plan`], [`process`], [`mounts`]), what they stand on ([`rootfs`], [`shared`]), their
//! streams ([`stdio`]), and how their processes are made ([`spawn`]).

pub mod mounts;
pub mod plan;
pub mod process;
pub mod rootfs;
pub mod shared;
pub mod spawn;
pub mod stdio;
