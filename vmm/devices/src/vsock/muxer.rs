//! All connections of the device: which packet belongs to which, whose turn it is to send to the guest, and the bytes on
//! their way between guest memory and host sockets.
//!
//! Knows no rings: packets from the guest come as a header with guest memory behind it, and those for the guest go to
//! buffers that [`BufferRing`] hands out. Owned by one thread. Memory is bounded by the number of connections, [`BUFFER_BUDGET`]
//! and [`MAX_RESETS`].

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use dewar_virtio::{
    RingError,
    worker::{EventSet, Registry},
};
use rustix::net::Shutdown;
use vm_memory::VolatileSlice;

use super::{
    MAX_SEGMENTS,
    buffer::Buffer,
    buffer_ring::{BufferRing, GuestBuffer},
    connection::{Connection, Key, Output, Received, SocketAction, State},
    counters::Counters,
    packet::{HOST_CID, Header, Op, TYPE_STREAM},
    socket::{HostSocket, Listener, Request},
};

/// Buffer of a connection.
const BUFFER_SIZE: u32 = 256 << 10;

/// Buffer of a connection when all large ones are taken.
const SMALL_BUFFER_SIZE: u32 = 32 << 10;

/// What large buffers may take together; small ones come on top, so all is at most twice this.
const BUFFER_BUDGET: u32 = 32 << 20;

/// Resets for packets without a connection that may wait for the guest to take them.
const MAX_RESETS: usize = 256;

/// Bytes that one connection may send before the next has its turn.
const TURN: usize = 64 << 10;

/// Ports given to host programs' ends; guests' own are below, as are all well-known ones.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// How a turn went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Sent,
    /// There is nothing to send.
    Idle,
    /// There may be something to send, and the guest has provided no buffer for it.
    Starved,
}

/// The host program takes no more; what it has sent can still be read.
const GONE: EventSet = EventSet::HANG_UP.union(EventSet::ERROR);

struct Entry {
    connection: Connection,
    /// `None` once nothing can go either way.
    socket: Option<HostSocket>,
    buffer: Buffer,
    /// What it takes from [`BUFFER_BUDGET`].
    reserved: u32,
    /// Whether it is in [`Muxer::ready`].
    queued: bool,
}

impl Entry {
    fn readable(&self) -> bool {
        self.socket.as_ref().is_some_and(|socket| socket.readable)
    }

    /// Writes what was kept, as far as the host program takes it.
    fn flush(&mut self) {
        let Some(socket) = &mut self.socket else { return };
        while socket.writable && !self.buffer.is_empty() {
            match socket.send_bytes(&self.buffer.slices()) {
                Ok(Some(sent)) => {
                    self.buffer.consume(sent);
                    self.connection.forwarded(u32::try_from(sent).unwrap_or(u32::MAX));
                }
                Ok(None) => {}
                Err(_) => {
                    self.buffer.clear();
                    self.connection.host_left();
                }
            }
        }
    }

    /// Delivers a packet's payload: straight from guest memory unless older bytes wait, and what is not taken is kept.
    fn deliver(&mut self, payload: &[VolatileSlice<'_>]) {
        let mut sent = 0;
        if let Some(socket) = &mut self.socket
            && socket.writable
            && self.buffer.is_empty()
        {
            match socket.send(payload) {
                Ok(count) => sent = count.unwrap_or(0),
                Err(_) => return self.connection.host_left(),
            }
            self.connection.forwarded(u32::try_from(sent).unwrap_or(u32::MAX));
        }
        for part in payload {
            let skipped = sent.min(part.len());
            sent = sent.saturating_sub(skipped);
            let Ok(rest) = part.offset(skipped) else { continue };
            if self.buffer.push(&rest) < rest.len() {
                // Its credit covers what a guest may send, so this is not reached.
                return self.connection.abort();
            }
        }
        self.flush();
    }

    /// One read from the socket, straight into as many buffers as `max` bytes need.
    fn send_data<'m>(
        &mut self,
        buffers: &mut BufferRing<'m>,
        first: GuestBuffer<'m>,
        max: usize,
    ) -> Result<(), RingError> {
        let mut batch = vec![first];
        let mut parts = Vec::with_capacity(MAX_SEGMENTS);
        let mut wanted = max;
        while let Some(last) = batch.last() {
            wanted = last.append_payload(&mut parts, wanted);
            if wanted == 0 {
                break;
            }
            match buffers.take()? {
                Some(next) if next.room() > 0 && parts.len().saturating_add(next.segments.len()) <= MAX_SEGMENTS => {
                    batch.push(next);
                }
                Some(_) => {
                    buffers.untake(1);
                    break;
                }
                None => break,
            }
        }
        let mut left = self.read(&parts);
        let mut unused: u16 = 0;
        for buffer in &batch {
            let len = buffer.room().min(left);
            left = left.saturating_sub(len);
            if len == 0 {
                unused = unused.saturating_add(1);
            } else {
                let header = self.connection.data_header(u32::try_from(len).unwrap_or(0));
                buffers.fill(buffer, header)?;
            }
        }
        buffers.untake(unused);
        Ok(())
    }

    /// Bytes read from the socket, with the connection told if there will be no more.
    fn read(&mut self, into: &[VolatileSlice<'_>]) -> usize {
        let received = match &mut self.socket {
            Some(socket) => socket.receive(into),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match received {
            Ok(Some(0)) => self.connection.host_ended(),
            Ok(received) => return received.unwrap_or(0),
            Err(_) => {
                self.connection.host_ended();
                self.connection.host_left();
                self.buffer.clear();
            }
        }
        0
    }
}

pub(super) struct Muxer {
    guest_cid: u64,
    max_connections: usize,
    listener: Arc<Listener>,
    /// May hold more host programs than have been accepted.
    acceptable: bool,
    /// A connection has ended since [`Muxer::resume_accepting`].
    freed: bool,
    entries: HashMap<u64, Entry>,
    tokens: HashMap<Key, u64>,
    /// Host programs whose request line is not complete.
    handshakes: HashMap<u64, HostSocket>,
    /// Connections that may have something for the guest, in the order of their turns.
    ready: VecDeque<u64>,
    resets: VecDeque<Header>,
    reserved: u32,
    next_token: u64,
    next_port: u32,
    counters: Arc<Counters>,
}

impl Muxer {
    /// Sockets are registered with tokens from `first_token` on. `max_connections` counts host programs that have not said
    /// yet which port they want.
    pub(super) fn new(
        guest_cid: u64,
        listener: Arc<Listener>,
        first_token: u64,
        max_connections: usize,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            guest_cid,
            max_connections,
            listener,
            acceptable: false,
            freed: false,
            entries: HashMap::new(),
            tokens: HashMap::new(),
            handshakes: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            reserved: 0,
            next_token: first_token,
            next_port: FIRST_HOST_PORT,
            counters,
        }
    }

    fn count(&self) -> usize {
        self.entries.len().saturating_add(self.handshakes.len())
    }

    fn new_token(&mut self) -> u64 {
        let token = self.next_token;
        self.next_token = self.next_token.wrapping_add(1);
        token
    }

    /// Accepts the host programs that wait.
    pub(super) fn accept(&mut self, registry: &Registry) {
        self.acceptable = true;
        while self.acceptable {
            match self.listener.accept() {
                Ok(Some(socket)) => self.greet(socket, registry),
                Ok(None) => self.acceptable = false,
                // Out of descriptors, most likely: goes on when a connection ends.
                Err(_) => return self.counters.accept_failures.add(1),
            }
        }
    }

    /// Accepts again if an earlier attempt found no descriptor and there may be one now.
    pub(super) fn resume_accepting(&mut self, registry: &Registry) {
        if self.acceptable && self.freed {
            self.accept(registry);
        }
        self.freed = false;
    }

    fn greet(&mut self, socket: HostSocket, registry: &Registry) {
        let token = self.new_token();
        if self.count() >= self.max_connections || socket.watch(registry, token).is_err() {
            return self.turn_away(socket);
        }
        self.handshakes.insert(token, socket);
        self.shake_hands(token);
    }

    fn turn_away(&mut self, socket: HostSocket) {
        socket.close();
        self.freed = true;
        self.counters.turned_away.add(1);
    }

    fn shake_hands(&mut self, token: u64) {
        let request = self.handshakes.get(&token).map_or(Request::Invalid, HostSocket::read_request);
        if request == Request::Incomplete {
            return;
        }
        let Some(socket) = self.handshakes.remove(&token) else { return };
        let Request::Port(guest_port) = request else {
            return self.turn_away(socket);
        };
        let key = Key { host_port: self.free_port(guest_port), guest_port };
        let buffer_size = self.reserve();
        self.insert(token, Connection::from_host(key, self.guest_cid, buffer_size), socket, buffer_size);
    }

    fn free_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let host_port = self.next_port;
            self.next_port = if host_port >= LAST_HOST_PORT { FIRST_HOST_PORT } else { host_port.saturating_add(1) };
            // Ends, as there are far fewer connections than ports.
            if !self.tokens.contains_key(&Key { host_port, guest_port }) {
                return host_port;
            }
        }
    }

    fn reserve(&mut self) -> u32 {
        let large = self.reserved.saturating_add(BUFFER_SIZE);
        if large > BUFFER_BUDGET {
            return SMALL_BUFFER_SIZE;
        }
        self.reserved = large;
        BUFFER_SIZE
    }

    fn insert(&mut self, token: u64, connection: Connection, socket: HostSocket, buffer_size: u32) {
        self.tokens.insert(connection.key(), token);
        let entry = Entry {
            connection,
            socket: Some(socket),
            buffer: Buffer::new(usize::try_from(buffer_size).unwrap_or(0)),
            reserved: if buffer_size == BUFFER_SIZE { buffer_size } else { 0 },
            queued: false,
        };
        self.entries.insert(token, entry);
        self.counters.connections.add(1);
        self.settle(token);
    }

    /// Takes what epoll said of a socket.
    pub(super) fn socket_event(&mut self, token: u64, events: EventSet) {
        if self.handshakes.contains_key(&token) {
            self.shake_hands(token);
            if events.intersects(EventSet::READ_HANG_UP | GONE)
                && let Some(socket) = self.handshakes.remove(&token)
            {
                self.turn_away(socket);
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(&token) else { return };
        if let Some(socket) = &mut entry.socket {
            socket.readable |= events.intersects(EventSet::IN | EventSet::READ_HANG_UP | GONE);
            socket.writable |= events.intersects(EventSet::OUT | GONE);
        }
        if events.intersects(GONE) {
            entry.buffer.clear();
            entry.connection.host_left();
        }
        entry.flush();
        self.settle(token);
    }

    /// Whether a packet of the guest's can be taken: one that cannot be answered has to wait until the guest provides
    /// buffers, lest answers pile up (section 5.10.6.2).
    pub(super) fn takes_packets(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// Takes a packet of the guest's. `payload` is as long as the header says, or `None` if the chain was shorter.
    pub(super) fn receive(&mut self, header: &Header, payload: Option<&[VolatileSlice<'_>]>, registry: &Registry) {
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return self.counters.misaddressed.add(1);
        }
        if header.kind != TYPE_STREAM {
            return self.refuse(header);
        }
        let key = Key { host_port: header.dst_port, guest_port: header.src_port };
        let Some(token) = self.tokens.get(&key).copied() else {
            return match header.op {
                Op::Request => self.guest_request(key, header, registry),
                Op::Reset => {}
                _ => self.refuse(header),
            };
        };
        let Some(entry) = self.entries.get_mut(&token) else { return };
        match payload {
            None => {
                self.counters.malformed.add(1);
                entry.connection.abort();
            }
            Some(payload) => match entry.connection.receive(header) {
                Received::Noted => {}
                Received::Payload => entry.deliver(payload),
                Received::Accepted => {
                    let told = entry.socket.as_ref().map(|socket| socket.write_accepted(key.host_port));
                    if entry.connection.deliverable() && !matches!(told, Some(Ok(()))) {
                        entry.connection.host_left();
                    }
                }
            },
        }
        self.settle(token);
    }

    fn refuse(&mut self, packet: &Header) {
        self.counters.resets.add(1);
        if packet.op != Op::Reset {
            self.resets.push_back(Header::reset_for(packet));
        }
    }

    fn guest_request(&mut self, key: Key, request: &Header, registry: &Registry) {
        if self.count() >= self.max_connections {
            self.counters.turned_away.add(1);
            return self.refuse(request);
        }
        let token = self.new_token();
        let connected = self.listener.connect(key.host_port).and_then(|socket| {
            socket.watch(registry, token)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => {
                let buffer_size = self.reserve();
                self.insert(token, Connection::from_guest(key, request, buffer_size), socket, buffer_size);
            }
            Err(_) => self.refuse(request),
        }
    }

    /// Does what the connection's state asks for now: acts on the socket, gives it a turn, or forgets it.
    fn settle(&mut self, token: u64) {
        let Some(entry) = self.entries.get_mut(&token) else { return };
        while let Some(action) = entry.connection.socket_action() {
            match (action, &entry.socket) {
                (SocketAction::ShutdownWrite, Some(socket)) => socket.shutdown(Shutdown::Write),
                (SocketAction::ShutdownRead, Some(socket)) => socket.shutdown(Shutdown::Read),
                (SocketAction::Close, _) => {
                    if let Some(socket) = entry.socket.take() {
                        socket.close();
                    }
                    entry.buffer.clear();
                }
                (_, None) => {}
            }
        }
        if !entry.queued && entry.connection.has_output(entry.readable()) {
            entry.queued = true;
            self.ready.push_back(token);
        }
        if entry.connection.state() == State::Closed {
            let key = entry.connection.key();
            let over = entry.socket.is_none();
            // From here on the guest may use the ports again, even while the last bytes go to the host program.
            if self.tokens.get(&key) == Some(&token) {
                self.tokens.remove(&key);
            }
            if over && let Some(entry) = self.entries.remove(&token) {
                self.reserved = self.reserved.saturating_sub(entry.reserved);
                self.freed = true;
            }
        }
    }

    /// Gives the next connection in line its turn.
    pub(super) fn send_next(&mut self, buffers: &mut BufferRing<'_>) -> Result<Turn, RingError> {
        if self.resets.is_empty() && self.ready.is_empty() {
            return Ok(Turn::Idle);
        }
        let Some(first) = self.take_usable(buffers)? else { return Ok(Turn::Starved) };
        if let Some(reset) = self.resets.pop_front() {
            buffers.fill(&first, reset)?;
            return Ok(Turn::Sent);
        }
        let Some((token, output)) = self.next_output() else {
            buffers.untake(1);
            return Ok(Turn::Idle);
        };
        match (output, self.entries.get_mut(&token)) {
            (Output::Control(header), _) => buffers.fill(&first, header)?,
            (Output::Data { max }, Some(entry)) => {
                let max = usize::try_from(max).unwrap_or(TURN).min(TURN);
                entry.send_data(buffers, first, max)?;
            }
            (Output::Data { .. }, None) | (Output::Nothing, _) => buffers.untake(1),
        }
        self.settle(token);
        Ok(Turn::Sent)
    }

    fn next_output(&mut self) -> Option<(u64, Output)> {
        while let Some(token) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&token) else { continue };
            entry.queued = false;
            let readable = entry.readable();
            match entry.connection.output(readable) {
                Output::Nothing => {}
                output => return Some((token, output)),
            }
        }
        None
    }

    /// The next buffer with room for more than a header; others go back empty.
    fn take_usable<'m>(&self, buffers: &mut BufferRing<'m>) -> Result<Option<GuestBuffer<'m>>, RingError> {
        while let Some(buffer) = buffers.take()? {
            if buffer.room() > 0 {
                return Ok(Some(buffer));
            }
            self.counters.malformed.add(1);
            buffers.discard(&buffer)?;
        }
        Ok(None)
    }
}
