//! The whole device on real unix sockets, with a driver on the other side of its queues.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, atomic::Ordering, mpsc::Receiver},
    thread,
};

use dewar_virtio::{
    Activation, ActiveQueue, BrokenFlag, GuestMemory, Interrupt, VirtioDevice,
    test_utils::{Buffer, DriverQueue, RINGS_SIZE, Signal, TestInterrupt, memory},
};
use tempfile::TempDir;
use virtio_bindings::{virtio_config::VIRTIO_F_VERSION_1, virtio_ring::VIRTIO_RING_F_EVENT_IDX};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{
    Counters, Vsock,
    packet::{HEADER_SIZE, HOST_CID, Header, Op, SHUTDOWN_BOTH, SHUTDOWN_SEND, TYPE_STREAM},
};

const CID: u64 = 42;
/// Descriptors in a queue; each packet takes two.
const SIZE: u16 = 32;
const SLOTS: u16 = SIZE / 2;
/// Payload of a packet of the driver's.
const ROOM: usize = 4096;
const PEER_SIZE: u32 = 64 << 10;

/// A queue of the driver's with a fixed buffer for each pair of descriptors: a header and a payload. Chains come back in
/// the order in which they were made available, so the buffers are used in turn.
struct Ring {
    memory: Arc<GuestMemory>,
    queue: DriverQueue,
    kick: EventFd,
    buffers: u64,
    writable: bool,
    offered: u16,
    /// Chains that came back.
    back: u16,
}

impl Ring {
    fn new(memory: &Arc<GuestMemory>, index: u16, features: u64) -> (Self, ActiveQueue) {
        let base = 0x1_0000 + u64::from(index) * 0x8_0000;
        let queue = DriverQueue::new(memory.clone(), base, SIZE);
        let active = queue.activate(index, features).unwrap();
        let ring = Self {
            memory: memory.clone(),
            queue,
            kick: active.kick.try_clone().unwrap(),
            buffers: base + RINGS_SIZE,
            writable: index == 0,
            offered: 0,
            back: 0,
        };
        (ring, active)
    }

    /// Where the header of chain `number` is; its payload is 4096 bytes further.
    fn header_at(&self, number: u16) -> u64 {
        self.buffers + u64::from(number % SLOTS) * 0x2000
    }

    fn is_full(&self) -> bool {
        self.offered.wrapping_sub(self.back) == SLOTS
    }

    /// Makes the next chain available, with room for a header and `len` bytes of payload.
    fn offer(&mut self, len: usize) {
        let header_at = self.header_at(self.offered);
        let header = Buffer { address: header_at, len: u32::try_from(HEADER_SIZE).unwrap(), writable: self.writable };
        let payload = Buffer { address: header_at + 0x1000, len: u32::try_from(len).unwrap(), ..header };
        self.queue.add(&[header, payload]).unwrap();
        self.offered = self.offered.wrapping_add(1);
        self.kick.write(1).unwrap();
    }

    /// The address and the length of the next chain that came back.
    fn take_used(&mut self) -> Option<(u64, usize)> {
        // With EVENT_IDX: asks for an interrupt at the next one, before the last look.
        self.queue.set_used_event(self.back).unwrap();
        std::sync::atomic::fence(Ordering::SeqCst);
        let (head, len) = self.queue.used().unwrap()?;
        let header_at = self.header_at(self.back);
        assert_eq!(head / 2, self.back % SLOTS);
        self.back = self.back.wrapping_add(1);
        Some((header_at, usize::try_from(len).unwrap()))
    }
}

/// The guest: its driver and, of its vsock stack, as much as the tests need.
struct Guest {
    device: Vsock,
    counters: Arc<Counters>,
    broken: BrokenFlag,
    rx: Ring,
    tx: Ring,
    signals: Receiver<Signal>,
    folder: TempDir,
}

impl Guest {
    /// A device with receive buffers.
    fn new(event_idx: bool) -> Self {
        let mut guest = Self::without_buffers(event_idx);
        guest.offer_buffers();
        guest
    }

    fn without_buffers(event_idx: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let device = Vsock::new(CID, folder.path().join("vsock")).unwrap();
        Self::activated(device, folder, event_idx)
    }

    fn activated(mut device: Vsock, folder: TempDir, event_idx: bool) -> Self {
        let memory = memory(2 << 20).unwrap();
        let features = (1 << VIRTIO_F_VERSION_1) | if event_idx { 1 << VIRTIO_RING_F_EVENT_IDX } else { 0 };
        let (rx, rx_active) = Ring::new(&memory, 0, features);
        let (tx, tx_active) = Ring::new(&memory, 1, features);
        let (interrupt, signals) = TestInterrupt::new();
        let broken = BrokenFlag::new({
            let interrupt = interrupt.clone();
            move || interrupt.config()
        });
        let queues = vec![rx_active, tx_active];
        device.activate(Activation { memory, queues, interrupt, features, broken: broken.clone() }).unwrap();
        Self { counters: device.counters(), device, broken, rx, tx, signals, folder }
    }

    fn offer_buffers(&mut self) {
        while !self.rx.is_full() {
            self.rx.offer(ROOM);
        }
    }

    fn host_connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("vsock")).unwrap()
    }

    fn host_listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// Sends `header` with `payload` behind it, whatever its `len` says.
    fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        while self.tx.take_used().is_some() || self.tx.is_full() {
            if self.tx.is_full() {
                self.signals.recv().unwrap();
            }
        }
        let header_at = self.tx.header_at(self.tx.offered);
        self.tx.memory.write_slice(&header.to_wire(), GuestAddress(header_at)).unwrap();
        self.tx.memory.write_slice(payload, GuestAddress(header_at + 0x1000)).unwrap();
        self.tx.offer(payload.len());
    }

    /// A packet if there is one.
    fn poll(&mut self) -> Option<(Header, Vec<u8>)> {
        let (header_at, len) = self.rx.take_used()?;
        let mut wire = [0; HEADER_SIZE];
        self.rx.memory.read_slice(&mut wire, GuestAddress(header_at)).unwrap();
        let header = Header::from_wire(&wire);
        assert_eq!(len, HEADER_SIZE + usize::try_from(header.len).unwrap());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
        let mut payload = vec![0; len - HEADER_SIZE];
        self.rx.memory.read_slice(&mut payload, GuestAddress(header_at + 0x1000)).unwrap();
        self.rx.offer(ROOM);
        Some((header, payload))
    }

    /// The next packet.
    fn wait(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Some(packet) = self.poll() {
                return packet;
            }
            self.signals.recv().unwrap();
            assert!(!self.broken.is_set());
        }
    }

    fn expect(&mut self, op: Op) -> Header {
        let (header, _) = self.wait();
        assert_eq!(header.op, op, "{header:?}");
        header
    }

    /// A connection to a program that listens for `port`, with the program's end.
    fn connect(&mut self, port: u32, listener: &UnixListener) -> (Peer, UnixStream) {
        let mut peer = Peer { host_port: port, guest_port: 7000, credit: 0, sent: 0, received: 0 };
        self.send_raw(&peer.header(Op::Request, 0), &[]);
        let response = self.expect(Op::Response);
        peer.learn(&response);
        (peer, listener.accept().unwrap().0)
    }
}

/// The guest's end of a connection.
struct Peer {
    host_port: u32,
    guest_port: u32,
    /// Bytes that may be sent.
    credit: u32,
    sent: u32,
    received: u32,
}

impl Peer {
    fn header(&self, op: Op, len: usize) -> Header {
        Header {
            src_cid: CID,
            dst_cid: HOST_CID,
            src_port: self.guest_port,
            dst_port: self.host_port,
            len: u32::try_from(len).unwrap(),
            kind: TYPE_STREAM,
            op,
            flags: 0,
            buf_alloc: PEER_SIZE,
            fwd_cnt: self.received,
        }
    }

    fn shutdown(&self, flags: u32) -> Header {
        Header { flags, ..self.header(Op::Shutdown, 0) }
    }

    fn learn(&mut self, header: &Header) {
        self.credit = header.buf_alloc - (self.sent - header.fwd_cnt);
    }

    /// Sends as much of `bytes` as fits one packet and the credit.
    fn send(&mut self, guest: &mut Guest, bytes: &[u8]) -> usize {
        let len = bytes.len().min(ROOM).min(usize::try_from(self.credit).unwrap());
        if len > 0 {
            guest.send_raw(&self.header(Op::Data, len), &bytes[..len]);
            self.sent += u32::try_from(len).unwrap();
            self.credit -= u32::try_from(len).unwrap();
        }
        len
    }
}

fn noise(len: usize, mut seed: u32) -> Vec<u8> {
    (0..len)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed.to_be_bytes()[0]
        })
        .collect()
}

fn read_line(stream: &mut UnixStream) -> String {
    let mut line = String::new();
    while !line.ends_with('\n') {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        line.push(char::from(byte[0]));
    }
    line
}

fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

#[test]
fn a_host_program_speaks_with_the_guest_and_both_close() {
    for event_idx in [false, true] {
        let mut guest = Guest::new(event_idx);
        let mut program = guest.host_connect();
        program.write_all(b"CONNECT 52\nhello").unwrap();
        let request = guest.expect(Op::Request);
        assert_eq!(request.dst_port, 52);
        let mut peer = Peer { host_port: request.src_port, guest_port: 52, credit: 0, sent: 0, received: 0 };
        peer.learn(&request);
        guest.send_raw(&peer.header(Op::Response, 0), &[]);
        assert_eq!(read_line(&mut program), format!("OK {}\n", request.src_port));
        let (header, payload) = guest.wait();
        assert_eq!((header.op, payload.as_slice()), (Op::Data, b"hello".as_slice()));

        program.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(guest.expect(Op::Shutdown).flags, SHUTDOWN_SEND);
        assert_eq!(peer.send(&mut guest, b"bye"), 3);
        guest.send_raw(&peer.shutdown(SHUTDOWN_BOTH), &[]);
        assert_eq!(guest.expect(Op::Reset).dst_port, 52);
        assert_eq!(read_all(&mut program), b"bye");
    }
}

#[test]
fn a_program_that_came_before_the_driver_is_served() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("vsock");
    let device = Vsock::new(CID, path.clone()).unwrap();
    let mut program = UnixStream::connect(&path).unwrap();
    program.write_all(b"CONNECT 9\nin advance").unwrap();
    let mut guest = Guest::activated(device, folder, true);
    guest.offer_buffers();
    let request = guest.expect(Op::Request);
    let peer = Peer { host_port: request.src_port, guest_port: 9, credit: 0, sent: 0, received: 0 };
    guest.send_raw(&peer.header(Op::Reset, 0), &[]);
    assert_eq!(
        read_all(&mut program),
        b"",
        "refused: the end without OK, and no error for the bytes that were not read"
    );
    drop(guest);
    assert!(!path.exists());
}

#[test]
fn a_reset_ends_connections_and_the_next_driver_serves_who_came_meanwhile() {
    let mut guest = Guest::new(true);
    let listener = guest.host_listen(5);
    let (_, mut old) = guest.connect(5, &listener);
    guest.device.reset();
    assert_eq!(read_all(&mut old), b"");
    let mut program = guest.host_connect();
    program.write_all(b"CONNECT 9\n").unwrap();
    let Guest { device, folder, .. } = guest;
    let mut guest = Guest::activated(device, folder, true);
    guest.offer_buffers();
    assert_eq!(guest.expect(Op::Request).dst_port, 9);
}

#[test]
fn connections_past_the_limit_are_turned_away() {
    let folder = TempDir::new().unwrap();
    let mut device = Vsock::new(CID, folder.path().join("vsock")).unwrap();
    device.max_connections = 2;
    let mut guest = Guest::activated(device, folder, true);
    guest.offer_buffers();
    let listener = guest.host_listen(5);
    let (peer, _program) = guest.connect(5, &listener);
    let mut program = guest.host_connect();
    program.write_all(b"CONNECT 9\n").unwrap();
    guest.expect(Op::Request);

    assert_eq!(read_all(&mut guest.host_connect()), b"");
    let second = Peer { guest_port: 7001, ..peer };
    guest.send_raw(&second.header(Op::Request, 0), &[]);
    assert_eq!(guest.expect(Op::Reset).dst_port, 7001);
    assert_eq!(guest.counters.turned_away.get(), 2);

    let first = Peer { guest_port: 7000, ..second };
    guest.send_raw(&first.header(Op::Reset, 0), &[]);
    guest.send_raw(&second.header(Op::Request, 0), &[]);
    assert_eq!(guest.expect(Op::Response).dst_port, 7001);
}

#[test]
fn a_program_that_goes_before_it_said_what_it_wants_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let mut device = Vsock::new(CID, folder.path().join("vsock")).unwrap();
    device.max_connections = 1;
    let mut guest = Guest::activated(device, folder, true);
    guest.offer_buffers();
    let mut program = guest.host_connect();
    program.write_all(b"CONNE").unwrap();
    program.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut program), b"");
    let mut program = guest.host_connect();
    program.write_all(b"CONNECT 9\n").unwrap();
    assert_eq!(guest.expect(Op::Request).dst_port, 9);
}

#[test]
fn a_guest_reaches_only_ports_that_are_listened_on() {
    let mut guest = Guest::new(true);
    let missing = Peer { host_port: 1, guest_port: 2, credit: 0, sent: 0, received: 0 };
    guest.send_raw(&missing.header(Op::Request, 0), &[]);
    let reset = guest.expect(Op::Reset);
    assert_eq!((reset.src_port, reset.dst_port), (1, 2));

    let listener = guest.host_listen(1024);
    let (mut peer, mut program) = guest.connect(1024, &listener);
    assert_eq!(peer.send(&mut guest, b"hi"), 2);
    let mut got = [0; 2];
    program.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hi");
    drop(program);
    assert_eq!(guest.expect(Op::Shutdown).flags, super::packet::SHUTDOWN_RECEIVE);
    assert_eq!(guest.expect(Op::Shutdown).flags, SHUTDOWN_BOTH);
}

#[test]
fn lies_are_dropped_or_reset() {
    let mut guest = Guest::new(false);
    let listener = guest.host_listen(5);
    let (peer, mut program) = guest.connect(5, &listener);
    guest.send_raw(&Header { src_cid: 43, ..peer.header(Op::Data, 1) }, b"x");
    guest.send_raw(&Header { dst_cid: 1, ..peer.header(Op::Data, 1) }, b"x");
    guest.send_raw(&Header { kind: 2, ..peer.header(Op::Request, 0) }, &[]);
    let reset = guest.expect(Op::Reset);
    assert_eq!(reset.kind, 2);
    assert_eq!(guest.counters.misaddressed.get(), 2);

    guest.send_raw(&peer.header(Op::Data, 100), &[1; 99]);
    assert_eq!(guest.expect(Op::Reset).kind, TYPE_STREAM);
    assert_eq!(guest.counters.malformed.get(), 1);
    assert_eq!(read_all(&mut program), b"");
    assert!(!guest.broken.is_set());
}

#[test]
fn a_broken_ring_is_reported() {
    let mut guest = Guest::new(true);
    guest.tx.queue.set_avail_index(1000).unwrap();
    guest.tx.kick.write(1).unwrap();
    assert_eq!(guest.signals.recv(), Ok(Signal::Config));
    assert!(guest.broken.is_set());
    guest.device.reset();
}

#[test]
fn a_program_that_does_not_read_holds_the_guest_up_and_loses_nothing() {
    let mut guest = Guest::new(true);
    let listener = guest.host_listen(5);
    let (mut peer, mut program) = guest.connect(5, &listener);
    let sent = noise(8 << 20, 1);
    let mut at = 0;
    // Each request for credit is answered after what was sent before it; older updates may come first, but only a few.
    let mut answers_without_credit = 0;
    while answers_without_credit < 8 {
        let len = peer.send(&mut guest, &sent[at..]);
        at += len;
        if len == 0 {
            guest.send_raw(&peer.header(Op::CreditRequest, 0), &[]);
            peer.learn(&guest.expect(Op::CreditUpdate));
            answers_without_credit = if peer.credit == 0 { answers_without_credit + 1 } else { 0 };
        }
    }
    assert!(at >= 256 << 10 && at < sent.len(), "{at}");
    guest.send_raw(&peer.shutdown(SHUTDOWN_BOTH), &[]);
    let reader = thread::spawn(move || read_all(&mut program));
    loop {
        let (header, _) = guest.wait();
        if header.op == Op::Reset {
            break;
        }
    }
    assert!(reader.join().unwrap() == sent[..at]);
}

#[test]
fn more_than_the_credit_is_a_reset() {
    let mut guest = Guest::new(true);
    let listener = guest.host_listen(5);
    let (mut peer, program) = guest.connect(5, &listener);
    peer.credit = u32::MAX;
    let bytes = vec![1; ROOM];
    let reset = loop {
        assert_eq!(peer.send(&mut guest, &bytes), ROOM);
        if let Some((header, _)) = guest.poll()
            && header.op == Op::Reset
        {
            break header;
        }
    };
    assert_eq!(reset.dst_port, peer.guest_port);
    drop(program);
}

#[test]
fn a_guest_without_buffers_gets_everything_once_it_has_some() {
    for event_idx in [false, true] {
        let mut guest = Guest::without_buffers(event_idx);
        let listener = guest.host_listen(5);
        let peer = Peer { host_port: 5, guest_port: 6, credit: 0, sent: 0, received: 0 };
        guest.send_raw(&peer.header(Op::Request, 0), &[]);
        let (mut program, _) = listener.accept().unwrap();
        program.write_all(b"early").unwrap();
        drop(program);
        guest.offer_buffers();
        guest.expect(Op::Response);
        let mut payload = Vec::new();
        loop {
            let (header, bytes) = guest.wait();
            payload.extend(bytes);
            if header.op == Op::Shutdown && header.flags == SHUTDOWN_BOTH {
                break;
            }
        }
        assert_eq!(payload, b"early");
    }
}

#[test]
fn answers_to_a_guest_without_buffers_are_bounded_and_none_is_lost() {
    let mut guest = Guest::without_buffers(true);
    let stray = Peer { host_port: 1, guest_port: 0, credit: 0, sent: 0, received: 0 };
    let mut sent: u32 = 0;
    // The device takes as many as it can answer, then the transmit ring fills up.
    while sent < 256 + u32::from(SLOTS) {
        guest.send_raw(&Peer { guest_port: sent, ..stray }.header(Op::Data, 0), &[]);
        sent += 1;
    }
    guest.offer_buffers();
    for port in 0..sent {
        assert_eq!(guest.expect(Op::Reset).dst_port, port);
    }
}

/// A program that sends `down` and, at the same time, reads to the end.
fn exchange(mut stream: UnixStream, down: Vec<u8>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&down).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let all = read_all(&mut stream);
        sender.join().unwrap();
        all
    })
}

#[test]
fn megabytes_both_ways_arrive_intact_on_many_connections() {
    const CONNECTIONS: u32 = 4;
    let mut guest = Guest::new(true);
    let listener = guest.host_listen(5);
    let (down, up) = (noise(3 << 20, 7), noise(2 << 20, 9));
    let mut streams = Vec::new();
    let mut peers = Vec::new();
    for index in 0..CONNECTIONS {
        let mut peer = Peer { host_port: 5, guest_port: 100 + index, credit: 0, sent: 0, received: 0 };
        guest.send_raw(&peer.header(Op::Request, 0), &[]);
        peer.learn(&guest.expect(Op::Response));
        streams.push(listener.accept().unwrap().0);
        peers.push((peer, Some(0), Vec::new()));
    }
    let programs: Vec<_> = streams.into_iter().map(|stream| exchange(stream, down.clone())).collect();
    let mut over = 0;
    while over < CONNECTIONS {
        for (peer, unsent, _) in &mut peers {
            let Some(at) = unsent else { continue };
            loop {
                let len = peer.send(&mut guest, &up[*at..]);
                *at += len;
                if len == 0 {
                    break;
                }
            }
            if *at == up.len() {
                *unsent = None;
                guest.send_raw(&peer.shutdown(SHUTDOWN_SEND), &[]);
            }
        }
        let (header, payload) = guest.wait();
        let index = usize::try_from(header.dst_port - 100).unwrap();
        let (peer, unsent, got) = &mut peers[index];
        peer.learn(&header);
        got.extend(payload);
        if header.op == Op::Data {
            peer.received += header.len;
            let update = peer.header(Op::CreditUpdate, 0);
            guest.send_raw(&update, &[]);
        }
        if header.op == Op::Shutdown && header.flags == SHUTDOWN_BOTH {
            assert_eq!(*unsent, None);
            guest.send_raw(&peer.header(Op::Reset, 0), &[]);
            over += 1;
        }
    }
    for (_, _, got) in &peers {
        assert!(*got == down);
    }
    for program in programs {
        assert!(program.join().unwrap() == up);
    }
}
