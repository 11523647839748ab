//! The device from its driver's side, with the server played by the test.

use std::{
    io::{Read, Write},
    sync::mpsc::Receiver,
};

use dewar_virtio::{
    BrokenFlag, GuestMemory,
    test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory},
};
use dewar_vmm_api::fs_link::{ReplyHeader, RequestHeader};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;

const REQUEST: u64 = 0x1_0000;
const REPLY: u64 = 0x2_0000;

struct Driver {
    memory: Arc<GuestMemory>,
    queue: DriverQueue,
    kick: EventFd,
    signals: Receiver<Signal>,
    server: UnixStream,
    fs: Fs,
}

fn start() -> Driver {
    let (server, ours) = UnixStream::pair().unwrap();
    let mut fs = Fs::new("tag", ours).unwrap();
    let memory = memory(0x4_0000).unwrap();
    let urgent = DriverQueue::new(memory.clone(), 0x8000, 64);
    let queue = DriverQueue::new(memory.clone(), 0x1000, 128);
    let queues = vec![urgent.activate(0, 0).unwrap(), queue.activate(1, 0).unwrap()];
    let kick = queues[1].kick.try_clone().unwrap();
    let (interrupt, signals) = TestInterrupt::new();
    let broken = BrokenFlag::new(|| panic!("the ring is broken"));
    fs.activate(Activation { memory: memory.clone(), queues, interrupt, features: 0, broken }).unwrap();
    Driver { memory, queue, kick, signals, server, fs }
}

impl Driver {
    fn send(&mut self, unique: u64, reply_room: u32) -> u16 {
        let at = REQUEST + unique * 64;
        let mut request = [0; 40];
        request[..4].copy_from_slice(&40u32.to_le_bytes());
        request[8..16].copy_from_slice(&unique.to_le_bytes());
        self.memory.write_slice(&request, GuestAddress(at)).unwrap();
        let mut chain = vec![Buffer::readable(at, 40)];
        if reply_room > 0 {
            chain.push(Buffer::writable(REPLY + unique * 64, reply_room));
        }
        let head = self.queue.add(&chain).unwrap();
        self.kick.write(1).unwrap();
        head
    }

    fn request_at_server(&mut self) -> (RequestHeader, Vec<u8>) {
        let mut header = [0; 16];
        self.server.read_exact(&mut header).unwrap();
        let header = RequestHeader::from_bytes(header);
        let mut body = vec![0; header.len as usize];
        self.server.read_exact(&mut body).unwrap();
        (header, body)
    }

    fn reply(&mut self, tag: u64, body: &[u8]) {
        let header = ReplyHeader { len: u32::try_from(body.len()).unwrap(), tag };
        let frame = [&header.to_bytes(), body].concat();
        self.server.write_all(&frame).unwrap();
    }

    fn used(&mut self) -> (u16, u32) {
        loop {
            if let Some(used) = self.queue.used().unwrap() {
                return used;
            }
            self.signals.recv().unwrap();
        }
    }

    fn error_of(&self, unique: u64) -> i32 {
        self.memory.read_obj(GuestAddress(REPLY + unique * 64 + 4)).unwrap()
    }
}

#[test]
fn the_configuration_space_tells_tag_and_queues() {
    let (_server, ours) = UnixStream::pair().unwrap();
    let fs = Fs::new("dewar", ours).unwrap();
    let mut config = [0xff; 40];
    fs.read_config(0, &mut config);
    assert_eq!(&config[..6], b"dewar\0");
    assert_eq!(config[36..], 1u32.to_le_bytes());
    for wrong in ["", &"x".repeat(37)] {
        let (_server, ours) = UnixStream::pair().unwrap();
        assert!(Fs::new(wrong, ours).is_err());
    }
}

#[test]
fn replies_in_any_order_find_their_requests() {
    let mut driver = start();
    let (first, second) = (driver.send(1, 64), driver.send(2, 64));
    let ((one, body), (two, _)) = (driver.request_at_server(), driver.request_at_server());
    assert_eq!((one.len, one.max_reply, body[8]), (40, 64, 1));
    driver.reply(two.tag, &[2; 20]);
    assert_eq!(driver.used(), (second, 20));
    driver.reply(one.tag, &[1; 16]);
    assert_eq!(driver.used(), (first, 16));
    assert_eq!(driver.memory.read_obj::<u8>(GuestAddress(REPLY + 64)).unwrap(), 1);
}

#[test]
fn a_request_without_room_for_a_reply_gets_none() {
    let mut driver = start();
    let head = driver.send(1, 0);
    assert_eq!(driver.used(), (head, 0));
    assert_eq!(driver.request_at_server().0.max_reply, 0);
}

#[test]
fn a_server_that_hangs_up_or_breaks_the_rules_leaves_input_output_errors() {
    type Break = fn(&mut Driver, u64);
    let ways: [Break; 4] = [
        |driver, _| drop(driver.server.shutdown(std::net::Shutdown::Both)),
        |driver, tag| driver.reply(tag + 1, &[0; 16]),
        |driver, tag| driver.reply(tag, &[0; 65]),
        |driver, tag| driver.reply(tag, &[0; 15]),
    ];
    for break_it in ways {
        let mut driver = start();
        let head = driver.send(1, 64);
        let tag = driver.request_at_server().0.tag;
        break_it(&mut driver, tag);
        assert_eq!(driver.used(), (head, 16));
        assert_eq!(driver.error_of(1), -libc::EIO);
        let head = driver.send(2, 64);
        assert_eq!(driver.used(), (head, 16));
        assert_eq!(driver.error_of(2), -libc::EIO);
    }
}

#[test]
fn a_short_request_fails_and_a_reset_returns_what_is_under_way() {
    let mut driver = start();
    let head = driver.queue.add(&[Buffer::readable(REQUEST, 39), Buffer::writable(REPLY + 64, 64)]).unwrap();
    driver.kick.write(1).unwrap();
    assert_eq!(driver.used(), (head, 16));
    assert_eq!(driver.error_of(1), -libc::EIO);
    let head = driver.send(2, 64);
    driver.request_at_server();
    driver.fs.reset();
    assert_eq!(driver.used(), (head, 16));
}
