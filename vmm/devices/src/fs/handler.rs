//! Carries requests to the server and replies to the guest.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    sync::Arc,
};

use dewar_virtio::{
    ActiveQueue, Chain, GuestMemory, HeldChain, Interrupt, RingError,
    worker::{EventSet, Handler, Registry},
};
use dewar_vmm_api::fs_link::{FUSE_IN_HEADER, FUSE_OUT_HEADER, HEADER_SIZE, MAX_FRAME, ReplyHeader, RequestHeader};

use crate::counter::Counter;

/// Requests that are with the server at most.
const IN_FLIGHT: usize = 128;
/// Bytes that wait for the server beyond which no more requests are taken.
const BACKLOG: usize = 1 << 20;
/// Bytes read from the server at once.
const CHUNK: usize = 64 << 10;
/// Token of the server's socket; those below are the queues'.
const SERVER: u64 = 2;
/// Where a request's and a reply's `unique` lies.
const UNIQUE: usize = 8;

/// Figures since the device was made.
#[derive(Debug, Default)]
pub struct Counters {
    pub requests: Counter,
    pub request_bytes: Counter,
    pub reply_bytes: Counter,
    /// Requests that no server could answer, or that were no FUSE requests.
    pub failed: Counter,
}

impl Counters {
    /// All figures with their names.
    #[must_use]
    pub fn list(&self) -> [(&'static str, u64); 4] {
        [
            ("requests", self.requests.get()),
            ("request-bytes", self.request_bytes.get()),
            ("reply-bytes", self.reply_bytes.get()),
            ("failed", self.failed.get()),
        ]
    }
}

/// The connection to the server.
pub(super) struct Link {
    /// `None` once it has ended or broken the rules.
    socket: Option<UnixStream>,
    /// On their way to the server: bytes from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// What has come of the next reply.
    input: Vec<u8>,
    next_tag: u64,
}

impl Link {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket: Some(socket), out: Vec::new(), sent: 0, input: Vec::new(), next_tag: 0 }
    }

    fn backlog(&self) -> usize {
        self.out.len().saturating_sub(self.sent)
    }

    /// Sends what the socket takes; false when the server is gone.
    fn send(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        loop {
            let rest = self.out.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.out.clear();
                self.sent = 0;
                return true;
            }
            match socket.write(rest) {
                Ok(count) => self.sent = self.sent.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }

    /// Takes what has come, at most [`CHUNK`] bytes; false when the server is gone.
    fn receive(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        let before = self.input.len();
        self.input.resize(before.saturating_add(CHUNK), 0);
        let result = socket.read(self.input.get_mut(before..).unwrap_or_default());
        let (count, alive) = match result {
            Ok(count) => (count, count > 0),
            Err(error) => (0, matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)),
        };
        self.input.truncate(before.saturating_add(count));
        alive
    }
}

/// What runs in the device's worker.
pub struct FsHandler {
    queues: [ActiveQueue; 2],
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    link: Link,
    /// By tag: the queue that a request came from, its chain, and the guest's own name for it.
    waiting: HashMap<u64, Waiting>,
    counters: Arc<Counters>,
    waits_to_send: bool,
}

struct Waiting {
    queue: usize,
    chain: HeldChain,
    unique: [u8; 8],
}

impl FsHandler {
    pub(super) fn new(
        queues: [ActiveQueue; 2],
        memory: Arc<GuestMemory>,
        interrupt: Arc<dyn Interrupt>,
        link: Link,
        counters: Arc<Counters>,
    ) -> Self {
        Self { queues, memory, interrupt, link, waiting: HashMap::new(), counters, waits_to_send: false }
    }

    /// Gives the connection back; chains that are still with the server go back as failed.
    pub(super) fn into_link(mut self) -> Link {
        // The rings may be broken already, which changes nothing.
        drop(self.fail_all());
        self.link
    }

    /// Takes requests as long as there is room.
    fn take_requests(&mut self) -> Result<(), RingError> {
        for index in 0..self.queues.len() {
            let mut answered = false;
            while self.has_room() {
                match self.take_one(index)? {
                    Some(at_once) => answered |= at_once,
                    None => break,
                }
            }
            if answered {
                self.notify(index)?;
            }
        }
        Ok(())
    }

    /// Takes a queue's next request; says whether it was answered at once. `None`: there is none, and the next one kicks.
    fn take_one(&mut self, index: usize) -> Result<Option<bool>, RingError> {
        let Some(queue) = self.queues.get_mut(index) else { return Ok(None) };
        let mut popped = queue.pop(&self.memory)?.map(Chain::hold);
        // What came while kicks were not asked for is there already.
        while popped.is_none() && queue.enable_kicks(&self.memory)? {
            popped = queue.pop(&self.memory)?.map(Chain::hold);
        }
        let Some(chain) = popped else { return Ok(None) };
        match take(&mut self.link, &self.counters, &self.memory, &chain)? {
            Taken::Waits { tag, unique } => {
                self.waiting.insert(tag, Waiting { queue: index, chain, unique });
                return Ok(Some(false));
            }
            Taken::Sent => queue.answer(&self.memory, chain, &[])?,
            Taken::Failed { unique } => fail(queue, &self.memory, chain, unique)?,
        }
        Ok(Some(true))
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < IN_FLIGHT && self.link.backlog() < BACKLOG
    }

    fn notify(&mut self, index: usize) -> Result<(), RingError> {
        match self.queues.get_mut(index) {
            Some(queue) => queue.notify(&self.memory, self.interrupt.as_ref()),
            None => Ok(()),
        }
    }

    /// Hands complete replies to the guest. False when the server does not keep to the rules.
    fn give_replies(&mut self) -> Result<bool, RingError> {
        let mut at = 0usize;
        let mut touched = [false; 2];
        let kept = loop {
            let rest = self.link.input.get(at..).unwrap_or_default();
            let Some(header) = rest.first_chunk::<HEADER_SIZE>() else { break true };
            let header = ReplyHeader::from_bytes(*header);
            let len = usize::try_from(header.len).unwrap_or(usize::MAX);
            if header.len > MAX_FRAME || len < FUSE_OUT_HEADER {
                break false;
            }
            let end = HEADER_SIZE.saturating_add(len);
            let Some(body) = rest.get(HEADER_SIZE..end) else { break true };
            let Some(waiting) = self.waiting.remove(&header.tag) else { break false };
            let Some(queue) = self.queues.get_mut(waiting.queue) else { break false };
            if waiting.chain.writable_len() < len {
                self.waiting.insert(header.tag, waiting);
                break false;
            }
            queue.answer(&self.memory, waiting.chain, body)?;
            self.counters.reply_bytes.add(u64::from(header.len));
            if let Some(touched) = touched.get_mut(waiting.queue) {
                *touched = true;
            }
            at = at.saturating_add(end);
        };
        self.link.input.drain(..at);
        for (index, touched) in touched.into_iter().enumerate() {
            if touched {
                self.notify(index)?;
            }
        }
        Ok(kept)
    }

    /// Answers everything that is with the server, which is gone.
    fn fail_all(&mut self) -> Result<(), RingError> {
        for (_, Waiting { queue: index, chain, unique }) in self.waiting.drain() {
            self.counters.failed.add(1);
            let Some(queue) = self.queues.get_mut(index) else { continue };
            fail(queue, &self.memory, chain, unique)?;
        }
        (0..self.queues.len()).try_for_each(|index| self.notify(index))
    }

    fn server_gone(&mut self, registry: &Registry) -> Result<(), RingError> {
        if let Some(socket) = self.link.socket.take() {
            // It is about to be closed, which takes it out in any case.
            drop(registry.remove(&socket));
        }
        self.link.out.clear();
        self.link.sent = 0;
        self.fail_all()
    }

    fn await_server(&mut self, registry: &Registry) {
        let Some(socket) = &self.link.socket else { return };
        let waits = self.link.backlog() > 0;
        if waits != self.waits_to_send {
            let events = if waits { EventSet::IN | EventSet::OUT } else { EventSet::IN };
            // The socket was added and is open, so that this cannot fail.
            drop(registry.modify(socket, SERVER, events));
            self.waits_to_send = waits;
        }
    }
}

impl Handler for FsHandler {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        for (token, queue) in (0u64..).zip(&self.queues) {
            registry.add(&queue.kick, token, EventSet::IN)?;
        }
        match &self.link.socket {
            Some(socket) => registry.add(socket, SERVER, EventSet::IN),
            None => Ok(()),
        }
    }

    fn ready(&mut self, token: u64, _events: EventSet, registry: &Registry) -> Result<(), RingError> {
        if token == SERVER {
            let alive = self.link.receive();
            let kept = self.give_replies()?;
            if !alive || !kept {
                self.server_gone(registry)?;
            }
        } else if let Some(queue) = usize::try_from(token).ok().and_then(|index| self.queues.get_mut(index)) {
            queue.acknowledge_kick();
        }
        // What there is no room for now is found again when replies have made some.
        self.take_requests()?;
        if !self.link.send() && self.link.socket.is_some() {
            self.server_gone(registry)?;
        }
        self.await_server(registry);
        Ok(())
    }
}

enum Taken {
    Waits {
        tag: u64,
        unique: [u8; 8],
    },
    /// It needs no reply.
    Sent,
    Failed {
        unique: [u8; 8],
    },
}

/// Queues a request for the server.
fn take(link: &mut Link, counters: &Counters, memory: &GuestMemory, chain: &HeldChain) -> Result<Taken, RingError> {
    let len = chain.readable_len();
    let mut unique = [0; 8];
    let sized = u32::try_from(len).ok().filter(|len| *len <= MAX_FRAME);
    let Some(frame_len) = sized.filter(|_| len >= FUSE_IN_HEADER) else {
        counters.failed.add(1);
        return Ok(Taken::Failed { unique });
    };
    chain.read(memory, UNIQUE, &mut unique)?;
    let room = u32::try_from(chain.writable_len()).unwrap_or(u32::MAX).min(MAX_FRAME);
    if link.socket.is_none() {
        counters.failed.add(1);
        return Ok(Taken::Failed { unique });
    }
    let tag = link.next_tag;
    link.next_tag = tag.wrapping_add(1);
    link.out.extend_from_slice(&RequestHeader { len: frame_len, max_reply: room, tag }.to_bytes());
    let start = link.out.len();
    link.out.resize(start.saturating_add(len), 0);
    chain.read(memory, 0, link.out.get_mut(start..).unwrap_or_default())?;
    counters.requests.add(1);
    counters.request_bytes.add(u64::from(frame_len));
    Ok(if room == 0 { Taken::Sent } else { Taken::Waits { tag, unique } })
}

/// Answers a request with EIO, where there is room for that.
fn fail(queue: &mut ActiveQueue, memory: &GuestMemory, chain: HeldChain, unique: [u8; 8]) -> Result<(), RingError> {
    let error = io_error(unique);
    let bytes = if chain.writable_len() < error.len() { &[][..] } else { &error[..] };
    queue.answer(memory, chain, bytes)
}

/// FUSE's header of a reply that says EIO.
fn io_error(unique: [u8; 8]) -> [u8; FUSE_OUT_HEADER] {
    let mut bytes = [0; FUSE_OUT_HEADER];
    let len = 16u32.to_le_bytes();
    let error = (-libc::EIO).to_le_bytes();
    for (place, byte) in bytes.iter_mut().zip(len.into_iter().chain(error).chain(unique)) {
        *place = byte;
    }
    bytes
}
