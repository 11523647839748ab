//! Takes requests from the queue, carries them out, and answers them.

use std::{io, sync::Arc};

use dewar_virtio::{
    ActiveQueue, Chain, GuestMemory, Interrupt, RingError,
    worker::{EventSet, Handler, Registry},
};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};

use super::{
    ID_SIZE,
    disk::Disk,
    request::{HEADER_SIZE, Limits, MAX_RANGES, RANGE_SIZE, Request, RequestError, parse_ranges},
};
use crate::counter::Counter;

/// Figures since the device was made.
#[derive(Debug, Default)]
pub struct Counters {
    pub reads: Counter,
    pub read_bytes: Counter,
    pub writes: Counter,
    pub written_bytes: Counter,
    pub flushes: Counter,
    /// Ranges discarded or zeroed.
    pub cleared: Counter,
    /// Requests that the driver got wrong.
    pub refused: Counter,
    /// Requests that the host could not carry out.
    pub failed: Counter,
}

impl Counters {
    /// All figures with their names.
    #[must_use]
    pub fn list(&self) -> [(&'static str, u64); 8] {
        [
            ("reads", self.reads.get()),
            ("read-bytes", self.read_bytes.get()),
            ("writes", self.writes.get()),
            ("written-bytes", self.written_bytes.get()),
            ("flushes", self.flushes.get()),
            ("cleared", self.cleared.get()),
            ("refused", self.refused.get()),
            ("failed", self.failed.get()),
        ]
    }
}

/// What runs in the device's worker.
pub struct BlkHandler {
    queue: ActiveQueue,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    server: Server,
}

impl BlkHandler {
    pub(super) fn new(
        queue: ActiveQueue,
        memory: Arc<GuestMemory>,
        interrupt: Arc<dyn Interrupt>,
        disk: Disk,
        id: [u8; ID_SIZE],
        counters: Arc<Counters>,
    ) -> Self {
        Self { queue, memory, interrupt, server: Server { disk, id, counters } }
    }

    pub(super) fn into_parts(self) -> (Disk, [u8; ID_SIZE]) {
        (self.server.disk, self.server.id)
    }
}

impl Handler for BlkHandler {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.add(&self.queue.kick, 0, EventSet::IN)
    }

    fn ready(&mut self, _token: u64, _events: EventSet, _registry: &Registry) -> Result<(), RingError> {
        self.queue.acknowledge_kick();
        let server = &self.server;
        self.queue.serve(&self.memory, self.interrupt.as_ref(), |chain| server.answer(chain))
    }
}

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("The driver's request is wrong")]
    Request(#[from] RequestError),
    #[error("The host could not carry out the request")]
    Host(#[from] io::Error),
    #[error("The driver's ring is broken")]
    Ring(#[from] RingError),
}

struct Server {
    disk: Disk,
    id: [u8; ID_SIZE],
    counters: Arc<Counters>,
}

impl Server {
    fn answer(&self, chain: Chain<'_>) -> Result<(), RingError> {
        let Some(data_len) = chain.writable_len().checked_sub(1) else {
            // There is no place for a status: the chain goes back as it is.
            self.counters.refused.add(1);
            return Ok(());
        };
        let (status, written) = match self.execute(&chain) {
            Ok(written) => (VIRTIO_BLK_S_OK as u8, written),
            Err(ServeError::Request(error)) => {
                self.counters.refused.add(1);
                (error.status(), 0)
            }
            Err(ServeError::Host(_)) => {
                self.counters.failed.add(1);
                (VIRTIO_BLK_S_IOERR as u8, 0)
            }
            Err(ServeError::Ring(error)) => return Err(error),
        };
        chain.write(data_len, &[status])?;
        // The status is the last writable byte; what lies before it counts only if all of it was written.
        let used = if written == data_len { data_len.saturating_add(1) } else { written };
        chain.complete(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Carries out the request, and says how many bytes of data it wrote to the chain.
    fn execute(&self, chain: &Chain<'_>) -> Result<usize, ServeError> {
        let limits = Limits { size: self.disk.size(), read_only: self.disk.read_only() };
        let (readable, writable) = (chain.readable_len(), chain.writable_len());
        let mut header = [0; HEADER_SIZE];
        if readable < HEADER_SIZE {
            return Err(RequestError::TooShort { readable, writable }.into());
        }
        chain.read(0, &mut header)?;
        match Request::parse(header, readable, writable, limits)? {
            Request::Read { offset, len } => {
                self.disk.read(offset, chain.writable_slices(0, len)?)?;
                self.counters.reads.add(1);
                self.counters.read_bytes.add(len as u64);
                Ok(len)
            }
            Request::Write { offset, len } => {
                self.disk.write(offset, chain.readable_slices(HEADER_SIZE, len)?)?;
                self.counters.writes.add(1);
                self.counters.written_bytes.add(len as u64);
                Ok(0)
            }
            Request::Flush => {
                self.disk.flush()?;
                self.counters.flushes.add(1);
                Ok(0)
            }
            Request::GetId { len } => {
                let count = len.min(ID_SIZE);
                chain.write(0, self.id.get(..count).unwrap_or_default())?;
                Ok(count)
            }
            Request::Discard { len } => self.clear(chain, len, false, limits),
            Request::WriteZeroes { len } => self.clear(chain, len, true, limits),
        }
    }

    fn clear(&self, chain: &Chain<'_>, len: usize, zeroes: bool, limits: Limits) -> Result<usize, ServeError> {
        let mut bytes = [0; MAX_RANGES * RANGE_SIZE];
        let bytes = bytes.get_mut(..len).ok_or(RequestError::Ranges { len })?;
        chain.read(HEADER_SIZE, bytes)?;
        for range in parse_ranges(bytes, zeroes, limits)? {
            if zeroes {
                self.disk.zero(range.offset, range.len, range.unmap)?;
            } else {
                self.disk.discard(range.offset, range.len)?;
            }
            self.counters.cleared.add(1);
        }
        Ok(0)
    }
}
