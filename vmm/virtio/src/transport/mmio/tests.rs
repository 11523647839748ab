//! The registers from the driver's side.

use std::{os::fd::AsRawFd, sync::mpsc::Receiver};

use virtio_bindings::{
    virtio_config::{VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_F_VERSION_1},
    virtio_ring::VIRTIO_RING_F_EVENT_IDX,
};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::*;
use crate::{
    ActivateError, RingError,
    status::{ACKNOWLEDGE, DRIVER, DRIVER_OK, FAILED, FEATURES_OK, NEEDS_RESET},
    test_utils::{Buffer, DriverQueue, memory},
    transport::test_device::{ANSWER, DEVICE_TYPE, Event, FEATURES, TestDevice},
};

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const READY: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

struct Driver {
    memory: Arc<GuestMemory>,
    transport: MmioTransport,
    events: Receiver<Event>,
}

fn driver() -> Driver {
    let memory = memory(0x2_0000).unwrap();
    let (device, events) = TestDevice::new();
    Driver { transport: MmioTransport::new(memory.clone(), device).unwrap(), memory, events }
}

impl Driver {
    fn read(&self, register: u32) -> u32 {
        let mut word = [0xff; 4];
        self.transport.read(register.into(), &mut word);
        u32::from_le_bytes(word)
    }

    fn write(&mut self, register: u32, value: u32) {
        self.transport.write(register.into(), &value.to_le_bytes());
    }

    fn status(&mut self, value: u32) -> u32 {
        self.write(VIRTIO_MMIO_STATUS, value);
        self.read(VIRTIO_MMIO_STATUS)
    }

    fn accept_features(&mut self, features: u64) -> u32 {
        self.status(ACKNOWLEDGE);
        self.status(ACKNOWLEDGE | DRIVER);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, u32::try_from(half).unwrap());
        }
        self.status(ACKNOWLEDGE | DRIVER | FEATURES_OK)
    }

    fn set_up_queue(&mut self, index: u32, queue: &DriverQueue) {
        let config = queue.config();
        self.write(VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(VIRTIO_MMIO_QUEUE_NUM, config.size);
        for (low, high, address) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, config.desc_table),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, config.avail_ring),
            (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, config.used_ring),
        ] {
            self.write(low, half(address, 0));
            self.write(high, half(address, 1));
        }
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    fn start(&mut self) -> DriverQueue {
        let queue = DriverQueue::new(self.memory.clone(), 0x1000, 16);
        self.accept_features(VERSION_1);
        self.set_up_queue(1, &queue);
        assert_eq!(self.status(READY), READY);
        queue
    }

    fn await_interrupt(&self) {
        let epoll = Epoll::new().unwrap();
        let fd = self.transport.interrupt_fd();
        epoll.ctl(ControlOperation::Add, fd.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        assert_eq!(epoll.wait(-1, &mut [EpollEvent::default()]).unwrap(), 1);
        fd.read().unwrap();
    }
}

#[test]
fn the_device_identifies_itself() {
    let driver = driver();
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(), *b"virt");
    assert_eq!(driver.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), DEVICE_TYPE);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
}

#[test]
fn features_are_offered_in_halves() {
    let mut driver = driver();
    for (select, expected) in [(0, FEATURES & 0xffff_ffff), (1, (FEATURES | VERSION_1) >> 32), (2, 0)] {
        driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
        assert_eq!(u64::from(driver.read(VIRTIO_MMIO_DEVICE_FEATURES)), expected);
    }
}

#[test]
fn features_that_are_not_offered_or_without_version_1_are_refused() {
    for features in [VERSION_1 | (1 << 5), FEATURES, VERSION_1 | (1 << 63)] {
        assert_eq!(driver().accept_features(features) & FEATURES_OK, 0, "{features:#x}");
    }
    assert_ne!(driver().accept_features(VERSION_1 | FEATURES) & FEATURES_OK, 0);
}

#[test]
fn requests_are_answered_and_interrupt() {
    let mut driver = driver();
    let mut queue = driver.start();
    assert_eq!(driver.events.try_recv(), Ok(Event::Activated(vec![1], VERSION_1)));
    for _ in 0..3 {
        let head = queue.add(&[Buffer::writable(0x8000, 1)]).unwrap();
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        driver.await_interrupt();
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
        driver.write(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
        assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        assert_eq!(queue.used().unwrap(), Some((head, 1)));
        assert_eq!(driver.memory.read_obj::<u8>(GuestAddress(0x8000)).unwrap(), ANSWER);
    }
}

#[test]
fn the_kick_descriptor_is_as_good_as_the_register() {
    let mut driver = driver();
    let mut queue = driver.start();
    queue.add(&[Buffer::writable(0x8000, 1)]).unwrap();
    driver.transport.kicks()[1].write(1).unwrap();
    driver.await_interrupt();
    assert!(queue.used().unwrap().is_some());
}

#[test]
fn features_are_frozen_after_features_ok() {
    let mut driver = driver();
    driver.accept_features(VERSION_1);
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(VIRTIO_MMIO_DRIVER_FEATURES, 1 << VIRTIO_RING_F_EVENT_IDX);
    assert_eq!(driver.transport.illegal_accesses(), 1);
    let queue = DriverQueue::new(driver.memory.clone(), 0x1000, 16);
    driver.set_up_queue(0, &queue);
    driver.status(READY);
    assert_eq!(driver.events.try_recv(), Ok(Event::Activated(vec![0], VERSION_1)));
}

#[test]
fn queues_are_set_up_between_features_ok_and_driver_ok_only() {
    let mut driver = driver();
    driver.status(ACKNOWLEDGE);
    driver.status(ACKNOWLEDGE | DRIVER);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    driver.status(0);
    driver.start();
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
    assert_eq!(driver.transport.illegal_accesses(), 2);
}

#[test]
fn a_queue_that_does_not_exist_has_no_size() {
    let mut driver = driver();
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 16);
    driver.accept_features(VERSION_1);
    for index in [3, u32::MAX] {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, index);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, index);
    }
    assert_eq!(driver.transport.illegal_accesses(), 4);
}

#[test]
fn a_queue_outside_of_memory_needs_a_reset() {
    let mut driver = driver();
    let queue = DriverQueue::new(driver.memory.clone(), 0x100_0000, 16);
    driver.accept_features(VERSION_1);
    driver.set_up_queue(1, &queue);
    assert_eq!(driver.status(READY), READY | NEEDS_RESET);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    let fault = driver.transport.fault().unwrap().downcast_ref();
    assert!(matches!(fault, Some(ActivateError::Queue { index: 1, .. })));
    assert_eq!(driver.status(0), 0);
    assert!(driver.transport.fault().is_none());
}

#[test]
fn a_broken_ring_needs_a_reset_and_gets_one() {
    let mut driver = driver();
    let mut queue = driver.start();
    queue.offer(99).unwrap();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.await_interrupt();
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), READY | NEEDS_RESET);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
    assert!(matches!(driver.transport.fault().unwrap().downcast_ref(), Some(RingError::Index { index: 99, size: 16 })));
    assert_eq!(driver.status(0), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    let mut queue = driver.start();
    queue.add(&[Buffer::writable(0x8000, 1)]).unwrap();
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.await_interrupt();
    assert!(queue.used().unwrap().is_some());
}

#[test]
fn a_reset_forgets_what_the_driver_did() {
    let mut driver = driver();
    driver.start();
    driver.status(0);
    let events: Vec<_> = driver.events.try_iter().collect();
    assert_eq!(events, [Event::Activated(vec![1], VERSION_1), Event::Reset]);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    assert_eq!(driver.status(ACKNOWLEDGE), ACKNOWLEDGE);
    assert_eq!(driver.status(ACKNOWLEDGE | DRIVER), ACKNOWLEDGE | DRIVER);
    // The features are to be chosen anew.
    assert_eq!(driver.status(ACKNOWLEDGE | DRIVER | FEATURES_OK), ACKNOWLEDGE | DRIVER);
}

#[test]
fn the_configuration_space_is_open_to_a_living_driver() {
    let mut driver = driver();
    let mut bytes = [0; 6];
    driver.transport.write(0x100, b"x");
    driver.transport.read(0x103, &mut bytes);
    assert_eq!(&bytes, b"fig!!\0");
    driver.status(ACKNOWLEDGE);
    driver.status(ACKNOWLEDGE | DRIVER);
    driver.transport.write(0x103, b"FI");
    driver.transport.read(0x103, &mut bytes);
    assert_eq!(&bytes, b"FIg!!\0");
    driver.status(ACKNOWLEDGE | DRIVER | FAILED);
    driver.transport.write(0x103, b"no");
    driver.transport.read(0x103, &mut bytes);
    assert_eq!(&bytes, b"FIg!!\0");
    driver.transport.read(u64::MAX, &mut bytes);
    assert_eq!(bytes, [0; 6]);
}

#[test]
fn accesses_that_are_not_words_do_nothing() {
    let mut driver = driver();
    driver.transport.write(VIRTIO_MMIO_STATUS.into(), &[1]);
    driver.transport.write(2, &[1; 4]);
    driver.write(VIRTIO_MMIO_MAGIC_VALUE, 7);
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
    assert_eq!(driver.transport.illegal_accesses(), 3);
    let mut bytes = [0xff; 2];
    driver.transport.read(0, &mut bytes);
    assert_eq!(bytes, [0; 2]);
    let mut long = [0xff; 8];
    driver.transport.read(0, &mut long);
    assert_eq!(long, [0; 8]);
}

#[test]
fn illegal_status_writes_are_ignored() {
    let mut driver = driver();
    assert_eq!(driver.status(READY), 0);
    assert_eq!(driver.status(VIRTIO_CONFIG_S_DRIVER_OK), 0);
    assert_eq!(driver.transport.illegal_accesses(), 2);
    driver.start();
    assert_eq!(driver.status(ACKNOWLEDGE), READY);
    assert!(driver.events.try_iter().all(|event| event != Event::Reset));
}
