//! The device from its driver's side.

use std::{io::Write, os::unix::fs::FileExt, sync::mpsc::Receiver};

use dewar_virtio::{
    BrokenFlag, GuestMemory,
    test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory},
};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::*;

const HEADER: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const STATUS: u64 = 0x1_1000;

struct Driver {
    memory: Arc<GuestMemory>,
    queue: DriverQueue,
    kick: EventFd,
    signals: Receiver<Signal>,
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn start(blk: &mut Blk) -> Driver {
    let memory = memory(0x4_0000).unwrap();
    let driver = DriverQueue::new(memory.clone(), 0x1000, 256);
    let queue = driver.activate(0, 0).unwrap();
    let kick = queue.kick.try_clone().unwrap();
    let (interrupt, signals) = TestInterrupt::new();
    let broken = BrokenFlag::new(|| panic!("the ring is broken"));
    blk.activate(Activation { memory: memory.clone(), queues: vec![queue], interrupt, features: 0, broken }).unwrap();
    Driver { memory, queue: driver, kick, signals }
}

impl Driver {
    /// Sends a request with `data` buffers between header and status; answers (status, used length).
    fn request(&mut self, kind: u32, sector: u64, data: &[Buffer]) -> (u32, u32) {
        let header = [kind.to_le_bytes().as_slice(), &[0; 4], &sector.to_le_bytes()].concat();
        self.memory.write_slice(&header, GuestAddress(HEADER)).unwrap();
        self.memory.write_obj(0xeeu8, GuestAddress(STATUS)).unwrap();
        let chain = [&[Buffer::readable(HEADER, 16)], data, &[Buffer::writable(STATUS, 1)]].concat();
        let used = self.send(&chain);
        (self.memory.read_obj::<u8>(GuestAddress(STATUS)).unwrap().into(), used)
    }

    fn send(&mut self, chain: &[Buffer]) -> u32 {
        let head = self.queue.add(chain).unwrap();
        self.kick.write(1).unwrap();
        assert_eq!(self.signals.recv(), Ok(Signal::Queue(0)));
        let (used_head, used) = self.queue.used().unwrap().unwrap();
        assert_eq!(used_head, head);
        used
    }

    fn data(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(DATA)).unwrap();
        bytes
    }
}

#[test]
fn the_configuration_space_tells_size_and_limits() {
    let blk = Blk::new(vec![file(&[0; 4097])], true, "x").unwrap();
    let mut capacity = [0; 8];
    blk.read_config(0, &mut capacity);
    assert_eq!(u64::from_le_bytes(capacity), 16);
    let mut block_size = [0; 4];
    blk.read_config(20, &mut block_size);
    assert_eq!(u32::from_le_bytes(block_size), 512);
    let mut end = [0xff; 8];
    blk.read_config(56, &mut end);
    assert_eq!(end, [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn only_a_read_only_disk_says_that_it_is() {
    let writes = (1 << VIRTIO_BLK_F_FLUSH) | (1 << VIRTIO_BLK_F_DISCARD) | (1 << VIRTIO_BLK_F_WRITE_ZEROES);
    let read_only = Blk::new(vec![file(&[0; 4096])], true, "x").unwrap().features();
    let writable = Blk::new(vec![file(&[0; 4096])], false, "x").unwrap().features();
    assert_eq!(read_only & (writes | (1 << VIRTIO_BLK_F_RO)), 1 << VIRTIO_BLK_F_RO);
    assert_eq!(writable & (writes | (1 << VIRTIO_BLK_F_RO)), writes);
}

#[test]
fn reads_cross_files_and_buffers() {
    let mut blk = Blk::new(vec![file(&[1; 4096]), file(&[2; 100])], true, "x").unwrap();
    let mut driver = start(&mut blk);
    let buffers = [Buffer::writable(DATA, 500), Buffer::writable(DATA + 500, 524)];
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 7, &buffers), (VIRTIO_BLK_S_OK, 1025));
    assert_eq!(driver.data(1024), [vec![1; 512], vec![2; 100], vec![0; 412]].concat());
    assert_eq!(blk.counters().read_bytes.get(), 1024);
}

#[test]
fn writes_reach_the_file_and_survive_a_reset() {
    let backing = file(&[0; 4096]);
    let mut blk = Blk::new(vec![backing.try_clone().unwrap()], false, "x").unwrap();
    let mut driver = start(&mut blk);
    driver.memory.write_slice(&[9; 512], GuestAddress(DATA)).unwrap();
    assert_eq!(driver.request(VIRTIO_BLK_T_OUT, 1, &[Buffer::readable(DATA, 512)]), (VIRTIO_BLK_S_OK, 1));
    assert_eq!(driver.request(VIRTIO_BLK_T_FLUSH, 0, &[]), (VIRTIO_BLK_S_OK, 1));
    let mut sectors = [0; 1024];
    backing.read_exact_at(&mut sectors, 0).unwrap();
    assert_eq!(sectors.to_vec(), [vec![0; 512], vec![9; 512]].concat());
    blk.reset();
    let mut driver = start(&mut blk);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 1, &[Buffer::writable(DATA, 512)]), (VIRTIO_BLK_S_OK, 513));
    assert_eq!(driver.data(512), [9; 512]);
}

#[test]
fn a_read_only_disk_refuses_writes_whatever_the_driver_accepted() {
    let backing = file(&[5; 4096]);
    let mut blk = Blk::new(vec![backing.try_clone().unwrap()], true, "x").unwrap();
    let mut driver = start(&mut blk);
    for kind in [VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
        assert_eq!(driver.request(kind, 0, &[Buffer::readable(DATA, 512)]).0, VIRTIO_BLK_S_IOERR);
    }
    let mut bytes = [0; 4096];
    backing.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [5; 4096]);
    assert_eq!(blk.counters().refused.get(), 3);
}

#[test]
fn ranges_are_zeroed_and_discarded() {
    let backing = file(&[5; 8192]);
    let mut blk = Blk::new(vec![backing.try_clone().unwrap()], false, "x").unwrap();
    let mut driver = start(&mut blk);
    let range = [0u64.to_le_bytes().as_slice(), &8u32.to_le_bytes(), &1u32.to_le_bytes()].concat();
    driver.memory.write_slice(&range, GuestAddress(DATA)).unwrap();
    let buffers = [Buffer::readable(DATA, 16)];
    assert_eq!(driver.request(VIRTIO_BLK_T_WRITE_ZEROES, 0, &buffers), (VIRTIO_BLK_S_OK, 1));
    let mut bytes = [0; 8192];
    backing.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes.to_vec(), [vec![0; 4096], vec![5; 4096]].concat());
    // A discard must not have the flag.
    assert_eq!(driver.request(VIRTIO_BLK_T_DISCARD, 0, &buffers).0, VIRTIO_BLK_S_UNSUPP);
    driver.memory.write_obj(0u32, GuestAddress(DATA + 12)).unwrap();
    assert_eq!(driver.request(VIRTIO_BLK_T_DISCARD, 0, &buffers), (VIRTIO_BLK_S_OK, 1));
}

#[test]
fn the_id_is_padded_or_cut() {
    let mut blk = Blk::new(vec![file(&[0; 4096])], true, "layer-0").unwrap();
    let mut driver = start(&mut blk);
    let (status, _) = driver.request(VIRTIO_BLK_T_GET_ID, 0, &[Buffer::writable(DATA, 20)]);
    assert_eq!((status, driver.data(20)), (VIRTIO_BLK_S_OK, b"layer-0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec()));
    assert_eq!(driver.request(VIRTIO_BLK_T_GET_ID, 0, &[Buffer::writable(DATA + 100, 3)]), (VIRTIO_BLK_S_OK, 4));
    assert!(matches!(Blk::new(vec![file(&[])], true, "123456789012345678901"), Err(BlkError::IdTooLong { .. })));
}

#[test]
fn wrong_requests_are_answered_and_counted() {
    let mut blk = Blk::new(vec![file(&[0; 4096])], false, "x").unwrap();
    let mut driver = start(&mut blk);
    assert_eq!(driver.request(99, 0, &[]).0, VIRTIO_BLK_S_UNSUPP);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 8, &[Buffer::writable(DATA, 512)]).0, VIRTIO_BLK_S_IOERR);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[Buffer::writable(DATA, 511)]).0, VIRTIO_BLK_S_IOERR);
    assert_eq!(driver.send(&[Buffer::readable(HEADER, 16)]), 0);
    assert_eq!(driver.send(&[Buffer::readable(HEADER, 8), Buffer::writable(STATUS, 1)]), 1);
    assert_eq!(blk.counters().refused.get(), 5);
}

#[test]
fn a_failing_host_is_an_io_error_for_the_guest() {
    let backing = file(&[0; 4096]);
    let mut blk = Blk::new(vec![backing.try_clone().unwrap()], false, "x").unwrap();
    backing.set_len(0).unwrap();
    let mut driver = start(&mut blk);
    assert_eq!(driver.request(VIRTIO_BLK_T_IN, 0, &[Buffer::writable(DATA, 512)]).0, VIRTIO_BLK_S_IOERR);
    assert_eq!(blk.counters().failed.get(), 1);
}
