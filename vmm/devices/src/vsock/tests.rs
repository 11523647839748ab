//! The whole device on real unix sockets, with a driver that writes the rings itself.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use dewar_virtio::{Activation, ActiveQueue, BrokenFlag, GuestMemory, Interrupt, VirtioDevice};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::{
    eventfd::{EFD_NONBLOCK, EventFd},
    tempdir::TempDir,
};

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

const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// A virtqueue from the driver's side, with a fixed buffer for each pair of descriptors.
struct Ring {
    memory: Arc<GuestMemory>,
    base: u64,
    flags: u16,
    kick: EventFd,
    free: Vec<u16>,
    made_available: u16,
    used: u16,
}

impl Ring {
    fn new(memory: &Arc<GuestMemory>, base: u64, flags: u16) -> (Self, EventFd) {
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let ring = Self {
            memory: memory.clone(),
            base,
            flags,
            kick: kick.try_clone().unwrap(),
            free: (0..SLOTS).collect(),
            made_available: 0,
            used: 0,
        };
        (ring, kick)
    }

    fn avail(&self) -> u64 {
        self.base + 0x1000
    }

    fn used_ring(&self) -> u64 {
        self.base + 0x2000
    }

    fn buffer(&self, slot: u16) -> GuestAddress {
        GuestAddress(self.base + 0x4000 + u64::from(slot) * 0x2000)
    }

    fn queue(&self, event_idx: bool) -> Queue {
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_size(SIZE);
        queue.set_desc_table_address(Some(u32::try_from(self.base).unwrap()), Some(0));
        queue.set_avail_ring_address(Some(u32::try_from(self.avail()).unwrap()), Some(0));
        queue.set_used_ring_address(Some(u32::try_from(self.used_ring()).unwrap()), Some(0));
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        assert!(queue.is_valid(self.memory.as_ref()));
        queue
    }

    /// Makes a chain of header and `len` bytes of payload available.
    fn offer(&mut self, slot: u16, len: usize) {
        let (head, second) = (slot * 2, slot * 2 + 1);
        let buffer = self.buffer(slot).0;
        let header_size = u32::try_from(HEADER_SIZE).unwrap();
        let more = if len > 0 { NEXT } else { 0 };
        self.descriptor(head, buffer, header_size, self.flags | more, second);
        self.descriptor(second, buffer + 0x1000, u32::try_from(len).unwrap(), self.flags, 0);
        let entry = self.avail() + 4 + u64::from(self.made_available % SIZE) * 2;
        self.memory.write_obj(head, GuestAddress(entry)).unwrap();
        self.made_available = self.made_available.wrapping_add(1);
        let index = GuestAddress(self.avail() + 2);
        self.memory.store(self.made_available, index, std::sync::atomic::Ordering::SeqCst).unwrap();
        self.kick.write(1).unwrap();
    }

    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let at = self.base + u64::from(index) * 16;
        self.memory.write_obj(address, GuestAddress(at)).unwrap();
        self.memory.write_obj(len, GuestAddress(at + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(at + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(at + 14)).unwrap();
    }

    /// The slot and length of the next used chain.
    fn take_used(&mut self) -> Option<(u16, usize)> {
        let index = GuestAddress(self.used_ring() + 2);
        let used: u16 = self.memory.load(index, std::sync::atomic::Ordering::SeqCst).unwrap();
        // With EVENT_IDX: asks for an interrupt at the next one.
        let event = GuestAddress(self.avail() + 4 + u64::from(SIZE) * 2);
        self.memory.store(self.used, event, std::sync::atomic::Ordering::SeqCst).unwrap();
        if used == self.used {
            let used: u16 = self.memory.load(index, std::sync::atomic::Ordering::SeqCst).unwrap();
            if used == self.used {
                return None;
            }
        }
        let entry = self.used_ring() + 4 + u64::from(self.used % SIZE) * 8;
        self.used = self.used.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(entry)).unwrap();
        let len: u32 = self.memory.read_obj(GuestAddress(entry + 4)).unwrap();
        Some((u16::try_from(head).unwrap() / 2, usize::try_from(len).unwrap()))
    }
}

struct Interrupts(Sender<()>);

impl Interrupt for Interrupts {
    fn queue(&self, _index: u16) {
        let _ = self.0.send(());
    }

    fn config(&self) {
        let _ = self.0.send(());
    }
}

/// The guest: its driver and, of its vsock stack, as much as the tests need.
struct Guest {
    device: Vsock,
    counters: Arc<Counters>,
    broken: BrokenFlag,
    rx: Ring,
    tx: Ring,
    interrupts: Receiver<()>,
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
        let device = Vsock::new(CID, folder.as_path().join("vsock")).unwrap();
        Self::activated(device, folder, event_idx)
    }

    fn activated(mut device: Vsock, folder: TempDir, event_idx: bool) -> Self {
        let memory = Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap());
        let (rx, rx_kick) = Ring::new(&memory, 0x1_0000, WRITE);
        let (tx, tx_kick) = Ring::new(&memory, 0x8_0000, 0);
        let (sender, interrupts) = channel();
        let broken = BrokenFlag::new({
            let sender = std::sync::Mutex::new(sender.clone());
            move || sender.lock().unwrap().send(()).unwrap()
        });
        let activation = Activation {
            memory,
            queues: vec![
                ActiveQueue { index: 0, queue: rx.queue(event_idx), kick: rx_kick },
                ActiveQueue { index: 1, queue: tx.queue(event_idx), kick: tx_kick },
            ],
            interrupt: Arc::new(Interrupts(sender)),
            features: if event_idx { 1 << VIRTIO_RING_F_EVENT_IDX } else { 0 },
            broken: broken.clone(),
        };
        device.activate(activation).unwrap();
        Self { counters: device.counters(), device, broken, rx, tx, interrupts, folder }
    }

    fn offer_buffers(&mut self) {
        for slot in std::mem::take(&mut self.rx.free) {
            self.rx.offer(slot, ROOM);
        }
    }

    fn host_connect(&self) -> UnixStream {
        UnixStream::connect(self.folder.as_path().join("vsock")).unwrap()
    }

    fn host_listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.as_path().join(format!("vsock_{port}"))).unwrap()
    }

    /// Sends `header` with `payload` behind it, whatever its `len` says.
    fn send_raw(&mut self, header: &Header, payload: &[u8]) {
        while let Some((slot, _)) = self.tx.take_used() {
            self.tx.free.push(slot);
        }
        let slot = loop {
            if let Some(slot) = self.tx.free.pop() {
                break slot;
            }
            self.interrupts.recv().unwrap();
            while let Some((slot, _)) = self.tx.take_used() {
                self.tx.free.push(slot);
            }
        };
        let buffer = self.tx.buffer(slot);
        self.tx.memory.write_slice(&header.to_wire(), buffer).unwrap();
        self.tx.memory.write_slice(payload, GuestAddress(buffer.0 + 0x1000)).unwrap();
        self.tx.offer(slot, payload.len());
    }

    /// A packet if there is one.
    fn poll(&mut self) -> Option<(Header, Vec<u8>)> {
        let (slot, len) = self.rx.take_used()?;
        let buffer = self.rx.buffer(slot);
        let mut wire = [0; HEADER_SIZE];
        self.rx.memory.read_slice(&mut wire, buffer).unwrap();
        let header = Header::from_wire(&wire);
        assert_eq!(len, HEADER_SIZE + usize::try_from(header.len).unwrap());
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID));
        let mut payload = vec![0; len - HEADER_SIZE];
        self.rx.memory.read_slice(&mut payload, GuestAddress(buffer.0 + 0x1000)).unwrap();
        self.rx.offer(slot, ROOM);
        Some((header, payload))
    }

    /// The next packet.
    fn wait(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Some(packet) = self.poll() {
                return packet;
            }
            self.interrupts.recv().unwrap();
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
    let path = folder.as_path().join("vsock");
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
    let mut device = Vsock::new(CID, folder.as_path().join("vsock")).unwrap();
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
    let mut device = Vsock::new(CID, folder.as_path().join("vsock")).unwrap();
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
    guest.tx.made_available = 1000;
    guest.tx.offer(0, 0);
    guest.interrupts.recv().unwrap();
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
