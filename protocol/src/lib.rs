//! The contract between the host runtime and the guest agent.
//!
//! # Connections
//! - **RPC** (one per sandbox): the *agent* connects to the host (CID 2) on [`RPC_PORT`] as soon as it runs, so that the
//!   host waits on an event and never polls. The host accepts exactly one connection on that port and then stops
//!   listening: nothing else in the guest can pose as the agent. The agent sends [`Hello`] first; the host answers with a
//!   [`HelloAck`]; from then on the host sends [`Call`] frames and the agent [`GuestMessage`] frames.
//! - **Streams** (any number): the *host* connects to the guest on [`STREAM_PORT`], sends the eight little-endian bytes of
//!   a [`StreamId`], and from then on the connection carries the raw bytes of that stream. The agent refuses peers other
//!   than CID 2. Half-close of a connection is end of file on the stream.
//!
//! # Framing
//! A frame is a `u32` little-endian length (at most [`MAX_FRAME`]) and that many bytes of `postcard`.
//!
//! # Trust
//! The guest is hostile: on the host, whatever a [`GuestMessage`] says is an allegation. Lengths are bounded here; ids,
//! statuses and figures are for the receiver to check.

mod capabilities;
mod frame;
mod message;

pub use capabilities::CAPABILITIES;
pub use frame::{FrameDecoder, FrameError, encode, read_frame, write_frame};
pub use message::*;

/// Version of this contract. Host and guest refuse to talk when it differs.
pub const VERSION: u32 = 5;
/// First bytes of [`Hello`].
pub const MAGIC: [u8; 8] = *b"dewarRPC";
/// Vsock port on the host that the agent connects to.
pub const RPC_PORT: u32 = 1024;
/// Vsock port in the guest that the host connects to for each stream.
pub const STREAM_PORT: u32 = 1025;
/// Tag of the one virtio-fs device of a sandbox. Its root holds one entry (directory or file) for each thing that the host
/// shares; entries come and go while the machine runs.
pub const SHARED_TAG: &str = "dewar";
/// Where the agent mounts it, when a container first needs it.
pub const SHARED_DIR: &str = "/run/dewar/shared";
/// The source of a tmpfs mount that lies right below it names memory that the sandbox's containers share: whoever comes first
/// makes it with its options, and it goes with the last one.
pub const MEMORY_DIR: &str = "/run/dewar/memory";
/// A bind mount with this source shows a folder with the container's own `notify.sock`, of which [`Request::AwaitReady`] tells.
pub const NOTIFY_DIR: &str = "/run/dewar/notify";
/// Bind mounts with sources beneath it show a part of the container's own root filesystem, as the mounts before them left it.
pub const ROOT_DIR: &str = "/run/dewar/root";
/// Largest frame in bytes, both directions.
pub const MAX_FRAME: usize = 4 << 20;
/// x86 I/O port whose byte write ends the machine in an orderly way (QEMU: `isa-debug-exit`). Value: [`EXIT_POWER_OFF`].
pub const EXIT_IO_PORT: u16 = 0x501;
/// Value written to [`EXIT_IO_PORT`] on an orderly power-off. (`isa-debug-exit` makes QEMU exit with `value * 2 + 1`.)
pub const EXIT_POWER_OFF: u8 = 0x10;
