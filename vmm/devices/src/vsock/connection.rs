//! One stream connection between the guest and a host program, as a machine without I/O (virtio 1.2, section 5.10.6).
//!
//! It is told what the guest sent and what became of the host socket, and says what to send to the guest and what to do
//! to the socket. It holds no bytes: only how many are under way. Everything a snapshot needs is in plain fields.
//!
//! ```text
//!  host program ──► Requested ──RESPONSE──► Open ◄── REQUEST of the guest, host program listens
//!                       │                    │ both sides said SHUTDOWN both, or the guest broke the protocol
//!                       │                    ▼
//!                       │                Resetting   (a RST is to be sent)
//!                       └──RST──► Closed ◄───┴── RST sent, or RST received in any state
//! ```
//! `Closed` still has bytes for the host program when it is not [`Connection::drained`].

use super::packet::{HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM};

/// What names a connection, given that the guest has one CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Requested,
    Open,
    Resetting,
    Closed,
}

/// What a packet from the guest means for the host socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Nothing but what [`Connection::socket_action`] says.
    Noted,
    /// The guest accepted the host program's connection.
    Accepted,
    /// The payload is to be delivered, then reported with [`Connection::forwarded`].
    Payload,
}

/// What to send to the guest next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    Nothing,
    /// A packet without payload.
    Control(Header),
    /// Up to `max` bytes of the socket's, each packet's header by [`Connection::data_header`].
    Data {
        max: u32,
    },
}

/// What to do to the host socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketAction {
    ShutdownWrite,
    ShutdownRead,
    Close,
}

#[derive(Debug, Clone)]
pub(super) struct Connection {
    key: Key,
    guest_cid: u64,
    state: State,
    credit: Credit,
    /// The `SHUTDOWN_*` that the guest sent.
    guest_shut: u32,
    /// The `SHUTDOWN_*` that the guest was sent.
    announced: u32,
    /// The host program sends no more, and all it sent has been read.
    host_eof: bool,
    /// Nothing more can be delivered to the host program.
    host_deaf: bool,
    owes_request: bool,
    owes_response: bool,
    owes_credit: bool,
    socket_write_shut: bool,
    socket_read_shut: bool,
    socket_closed: bool,
}

/// The counters of both directions; all but the sizes are modulo 2^32.
#[derive(Debug, Clone)]
struct Credit {
    /// Size of our buffer.
    buf_alloc: u32,
    /// Payload bytes from the guest.
    received: u32,
    /// Those that left our buffer.
    forwarded: u32,
    /// `forwarded` as the guest last heard it.
    told: u32,
    /// Payload bytes to the guest.
    sent: u32,
    /// Size of the guest's buffer, as it says.
    peer_buf_alloc: u32,
    /// Those of `sent` that left the guest's buffer, as it says.
    peer_forwarded: u32,
    /// The guest has been asked for credit since it last had none.
    asked: bool,
}

impl Credit {
    /// Bytes in our buffer.
    fn backlog(&self) -> u32 {
        self.received.wrapping_sub(self.forwarded)
    }

    /// Bytes that the guest may send as far as it knows.
    fn advertised(&self) -> u32 {
        self.buf_alloc.saturating_sub(self.received.wrapping_sub(self.told))
    }

    /// Bytes that the guest has room for.
    fn available(&self) -> u32 {
        self.peer_buf_alloc.saturating_sub(self.sent.wrapping_sub(self.peer_forwarded))
    }

    /// Whether the guest should hear of the room that it does not know of: before it runs dry, and not for every packet.
    fn update_due(&self) -> bool {
        self.told != self.forwarded && self.advertised() < self.buf_alloc / 2
    }
}

impl Connection {
    /// A connection that the host program asks for; `buf_alloc` is the size of the buffer kept for it.
    pub(super) fn from_host(key: Key, guest_cid: u64, buf_alloc: u32) -> Self {
        Self {
            key,
            guest_cid,
            state: State::Requested,
            credit: Credit {
                buf_alloc,
                received: 0,
                forwarded: 0,
                told: 0,
                sent: 0,
                peer_buf_alloc: 0,
                peer_forwarded: 0,
                asked: false,
            },
            guest_shut: 0,
            announced: 0,
            host_eof: false,
            host_deaf: false,
            owes_request: true,
            owes_response: false,
            owes_credit: false,
            socket_write_shut: false,
            socket_read_shut: false,
            socket_closed: false,
        }
    }

    /// A connection that the guest asks for with `request`, the host program having been reached.
    pub(super) fn from_guest(key: Key, request: &Header, buf_alloc: u32) -> Self {
        let mut connection = Self::from_host(key, request.src_cid, buf_alloc);
        connection.state = State::Open;
        connection.owes_request = false;
        connection.owes_response = true;
        connection.credit.peer_buf_alloc = request.buf_alloc;
        connection.credit.peer_forwarded = request.fwd_cnt;
        connection
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Whether nothing of the guest's waits for the host program any more.
    pub(super) fn drained(&self) -> bool {
        self.host_deaf || self.credit.backlog() == 0
    }

    /// Whether the host program may still be given bytes.
    pub(super) fn deliverable(&self) -> bool {
        !self.host_deaf
    }

    /// Takes a packet of the guest's whose chain holds all of the `len` that its header claims.
    pub(super) fn receive(&mut self, packet: &Header) -> Received {
        if matches!(self.state, State::Resetting | State::Closed) {
            if packet.op == Op::Reset {
                self.state = State::Closed;
            }
            return Received::Noted;
        }
        self.credit.peer_buf_alloc = packet.buf_alloc;
        self.credit.peer_forwarded = packet.fwd_cnt;
        if self.credit.available() > 0 {
            self.credit.asked = false;
        }
        match (self.state, packet.op) {
            (_, Op::Reset) => {
                self.state = State::Closed;
                Received::Noted
            }
            (State::Requested, Op::Response) if !self.owes_request => {
                self.state = State::Open;
                Received::Accepted
            }
            (State::Open, Op::Data) => self.receive_data(packet.len),
            (State::Open, Op::Shutdown) => {
                self.guest_shut |= packet.flags & SHUTDOWN_BOTH;
                self.finish_if_over();
                Received::Noted
            }
            (State::Open, Op::CreditUpdate) => Received::Noted,
            (State::Open, Op::CreditRequest) => {
                self.owes_credit = true;
                Received::Noted
            }
            _ => {
                self.abort();
                Received::Noted
            }
        }
    }

    fn receive_data(&mut self, len: u32) -> Received {
        let forbidden = self.owes_response || self.guest_shut & SHUTDOWN_SEND != 0;
        if forbidden || len > self.credit.advertised() {
            self.abort();
            return Received::Noted;
        }
        self.credit.received = self.credit.received.wrapping_add(len);
        if self.host_deaf {
            self.forwarded(len);
            return Received::Noted;
        }
        Received::Payload
    }

    /// Ends the connection without regard to what is under way: the guest broke the protocol, or the socket failed.
    pub(super) fn abort(&mut self) {
        self.host_deaf = true;
        if self.state != State::Closed {
            self.state = State::Resetting;
        }
    }

    /// `count` bytes of the guest's went to the host program, or were given up.
    pub(super) fn forwarded(&mut self, count: u32) {
        self.credit.forwarded = self.credit.forwarded.wrapping_add(count.min(self.credit.backlog()));
        self.finish_if_over();
    }

    /// The host program sends no more, and all it sent was read.
    pub(super) fn host_ended(&mut self) {
        self.host_eof = true;
    }

    /// The host program takes no more; what was kept for it is given up.
    pub(super) fn host_left(&mut self) {
        self.host_deaf = true;
        self.forwarded(self.credit.backlog());
    }

    /// A guest that said SHUTDOWN for both directions waits for a reset, which says that everything was delivered.
    fn finish_if_over(&mut self) {
        if self.state == State::Open && self.guest_shut == SHUTDOWN_BOTH && self.drained() {
            self.state = State::Resetting;
        }
    }

    /// Whether the socket is worth reading once it has something.
    fn wants_data(&self) -> bool {
        self.state == State::Open
            && !self.owes_response
            && !self.host_eof
            && self.guest_shut & SHUTDOWN_RECEIVE == 0
            && !self.socket_closed
    }

    /// The `SHUTDOWN_*` that hold on the host's side.
    fn host_shut(&self) -> u32 {
        let mut shut = 0;
        if self.host_eof || self.guest_shut & SHUTDOWN_RECEIVE != 0 {
            shut |= SHUTDOWN_SEND;
        }
        if self.host_deaf || (self.guest_shut & SHUTDOWN_SEND != 0 && self.drained()) {
            shut |= SHUTDOWN_RECEIVE;
        }
        shut
    }

    fn owes_shutdown(&self) -> bool {
        (self.host_eof || self.host_deaf) && self.host_shut() != self.announced
    }

    /// What [`Connection::output`] has, without changing anything.
    pub(super) fn has_output(&self, readable: bool) -> bool {
        match self.state {
            State::Requested => self.owes_request,
            State::Resetting => true,
            State::Closed => false,
            State::Open => {
                self.owes_response
                    || self.owes_credit
                    || self.credit.update_due()
                    || self.owes_shutdown()
                    || (readable && self.wants_data() && (self.credit.available() > 0 || !self.credit.asked))
            }
        }
    }

    /// What to send to the guest next, given whether the socket may have something to read.
    pub(super) fn output(&mut self, readable: bool) -> Output {
        match self.state {
            State::Resetting => {
                self.state = State::Closed;
                self.control(Op::Reset, 0)
            }
            State::Requested if self.owes_request => {
                self.owes_request = false;
                self.control(Op::Request, 0)
            }
            State::Requested | State::Closed => Output::Nothing,
            State::Open => self.output_open(readable),
        }
    }

    fn output_open(&mut self, readable: bool) -> Output {
        if self.owes_response {
            self.owes_response = false;
            return self.control(Op::Response, 0);
        }
        if self.owes_credit || self.credit.update_due() {
            self.owes_credit = false;
            return self.control(Op::CreditUpdate, 0);
        }
        if self.owes_shutdown() {
            self.announced = self.host_shut();
            return self.control(Op::Shutdown, self.announced);
        }
        if !readable || !self.wants_data() {
            return Output::Nothing;
        }
        match self.credit.available() {
            0 if self.credit.asked => Output::Nothing,
            0 => {
                self.credit.asked = true;
                self.control(Op::CreditRequest, 0)
            }
            max => Output::Data { max },
        }
    }

    fn control(&mut self, op: Op, flags: u32) -> Output {
        Output::Control(self.header(op, 0, flags))
    }

    /// Accounts for `len` bytes read from the socket and makes the header that goes before them.
    pub(super) fn data_header(&mut self, len: u32) -> Header {
        self.credit.sent = self.credit.sent.wrapping_add(len);
        self.header(Op::Data, len, 0)
    }

    fn header(&mut self, op: Op, len: u32, flags: u32) -> Header {
        self.credit.told = self.credit.forwarded;
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: self.credit.buf_alloc,
            fwd_cnt: self.credit.forwarded,
        }
    }

    /// What is to be done to the socket now; each action is named once.
    pub(super) fn socket_action(&mut self) -> Option<SocketAction> {
        if self.socket_closed {
            return None;
        }
        let over = matches!(self.state, State::Resetting | State::Closed) || self.announced == SHUTDOWN_BOTH;
        if over && self.drained() {
            self.socket_closed = true;
            return Some(SocketAction::Close);
        }
        if self.guest_shut & SHUTDOWN_SEND != 0 && self.drained() && !self.socket_write_shut {
            self.socket_write_shut = true;
            return Some(SocketAction::ShutdownWrite);
        }
        if self.guest_shut & SHUTDOWN_RECEIVE != 0 && !self.socket_read_shut {
            self.socket_read_shut = true;
            return Some(SocketAction::ShutdownRead);
        }
        None
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
