//! virtio-vsock (virtio 1.2, section 5.10) with the host's side as unix sockets: stream connections between the guest and
//! host programs, no kernel support needed.
//!
//! * [`device`]: what the transport sees, and the thread that runs the rest.
//! * `muxer`: all connections, whose turn it is, and the bytes.
//! * `connection`: the protocol of one connection, without I/O.
//! * `packet`, `buffer`, `buffer_ring`, `socket`: headers, kept bytes, guest buffers, unix sockets.

use std::{io, path::PathBuf};

mod buffer;
mod buffer_ring;
mod connection;
mod counters;
mod device;
mod muxer;
mod packet;
mod socket;
#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use device::Vsock;

/// Pieces of guest memory that one call reads or writes.
const MAX_SEGMENTS: usize = 64;

/// Why a vsock device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    #[error("Guest CID {cid} is reserved or too large: choose one from 3 to 4294967294")]
    GuestCid { cid: u64 },
    #[error("The vsock path {} leaves no room for a port number: choose one of at most 96 bytes", .path.display())]
    PathTooLong { path: PathBuf },
    #[error("Listening on the vsock path {} failed", .path.display())]
    Listen { path: PathBuf, source: io::Error },
}
