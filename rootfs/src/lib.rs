//! What a guest finds in its memory and on its disks before any user's image: the kernel, the initramfs, the default
//! image and the template of the writable disk.
//!
//! Everything is written by our own code: no `cpio`, no `docker`, no root, no loop device. The bytes depend on the
//! inputs only, so that the same inputs give the same digests on every machine.

pub mod busybox;
pub mod cpio;
pub mod initramfs;
pub mod oci;
pub mod scratch;
pub mod vmlinux;
