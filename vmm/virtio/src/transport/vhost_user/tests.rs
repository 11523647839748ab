//! A device behind a socket, from a front end's side.

use std::{
    sync::mpsc::Receiver,
    thread::{JoinHandle, spawn},
};

use vhost::{
    VhostBackend, VhostUserMemoryRegionInfo, VringConfigData,
    vhost_user::{Frontend, VhostUserFrontend},
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;
use crate::{
    GuestMemory,
    test_utils::{Buffer, DriverQueue},
    transport::test_device::{ANSWER, Event, FEATURES, TestDevice},
};

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
/// Where guest memory starts.
const GUEST_BASE: u64 = 0x10_0000;
const SIZE: usize = 0x4_0000;

struct FrontEnd {
    frontend: Frontend,
    memory: Arc<GuestMemory>,
    region: VhostUserMemoryRegionInfo,
    events: Receiver<Event>,
    server: JoinHandle<Result<(), ServeError>>,
}

struct Ring {
    driver: DriverQueue,
    kick: EventFd,
    /// Blocking, so that a test can wait for it.
    call: EventFd,
    error: EventFd,
}

fn connect() -> FrontEnd {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (device, events) = TestDevice::new();
    let server = spawn(move || serve(theirs, device));
    let mut frontend = Frontend::from_stream(ours, 3);
    assert_eq!(frontend.get_features().unwrap(), FEATURES | VERSION_1 | PROTOCOL);
    let features = frontend.get_protocol_features().unwrap();
    frontend.set_protocol_features(features).unwrap();
    frontend.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
    frontend.set_owner().unwrap();
    frontend.set_features(VERSION_1 | PROTOCOL).unwrap();
    let (memory, region) = shared_memory();
    frontend.set_mem_table(&[region]).unwrap();
    FrontEnd { frontend, memory, region, events, server }
}

fn shared_memory() -> (Arc<GuestMemory>, VhostUserMemoryRegionInfo) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(SIZE as u64).unwrap();
    let ranges = [(GuestAddress(GUEST_BASE), SIZE, Some(FileOffset::new(file, 0)))];
    let memory = Arc::new(GuestMemory::from_ranges_with_files(ranges).unwrap());
    let region = memory.iter().next().unwrap();
    let info = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
    (memory, info)
}

impl FrontEnd {
    fn ring(&self, offset: u64) -> Ring {
        Ring {
            driver: DriverQueue::new(self.memory.clone(), GUEST_BASE + offset, 16),
            kick: EventFd::new(EFD_NONBLOCK).unwrap(),
            call: EventFd::new(0).unwrap(),
            error: EventFd::new(0).unwrap(),
        }
    }

    fn set_up(&mut self, index: usize, ring: &Ring, base: u16) {
        let config = ring.driver.config();
        let user = |address: u64| address - GUEST_BASE + self.region.userspace_addr;
        let data = VringConfigData {
            queue_max_size: 16,
            queue_size: 16,
            flags: 0,
            desc_table_addr: user(config.desc_table),
            used_ring_addr: user(config.used_ring),
            avail_ring_addr: user(config.avail_ring),
            log_addr: None,
        };
        self.frontend.set_vring_num(index, 16).unwrap();
        self.frontend.set_vring_base(index, base).unwrap();
        self.frontend.set_vring_addr(index, &data).unwrap();
        self.frontend.set_vring_kick(index, &ring.kick).unwrap();
        self.frontend.set_vring_call(index, &ring.call).unwrap();
        self.frontend.set_vring_err(index, &ring.error).unwrap();
    }

    fn finish(self) -> Result<(), ServeError> {
        drop(self.frontend);
        self.server.join().unwrap()
    }
}

impl Ring {
    fn request(&mut self, memory: &GuestMemory) {
        let buffer = GUEST_BASE + 0x3_0000;
        memory.write_obj(0u8, GuestAddress(buffer)).unwrap();
        self.driver.add(&[Buffer::writable(buffer, 1)]).unwrap();
        self.kick.write(1).unwrap();
        self.call.read().unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(buffer)).unwrap(), ANSWER);
        assert!(self.driver.used().unwrap().is_some());
    }
}

#[test]
fn the_device_starts_when_every_started_ring_is_enabled() {
    let mut front = connect();
    let mut rings = [front.ring(0), front.ring(0x8000)];
    for (index, ring) in rings.iter().enumerate() {
        front.set_up(index, ring, 0);
    }
    front.frontend.set_vring_enable(0, true).unwrap();
    assert!(front.events.try_recv().is_err());
    front.frontend.set_vring_enable(1, true).unwrap();
    // The third ring was never given.
    assert_eq!(front.events.try_recv(), Ok(Event::Activated(vec![0, 1], VERSION_1)));
    rings[1].request(&front.memory);
    rings[0].request(&front.memory);
    rings[1].request(&front.memory);
    front.finish().unwrap();
}

#[test]
fn a_stopped_ring_says_where_it_goes_on() {
    let mut front = connect();
    let mut ring = front.ring(0);
    front.set_up(0, &ring, 0);
    front.frontend.set_vring_enable(0, true).unwrap();
    for _ in 0..3 {
        ring.request(&front.memory);
    }
    front.frontend.set_vring_enable(0, false).unwrap();
    let base = front.frontend.get_vring_base(0).unwrap();
    assert_eq!(base, 3);
    front.set_up(0, &ring, 3);
    front.frontend.set_vring_enable(0, true).unwrap();
    ring.request(&front.memory);
    assert_eq!(front.frontend.get_vring_base(0).unwrap(), 4);
    let events: Vec<_> = front.events.try_iter().collect();
    let activated = Event::Activated(vec![0], VERSION_1);
    assert_eq!(events, [activated.clone(), Event::Reset, activated, Event::Reset]);
    front.finish().unwrap();
}

#[test]
fn a_ring_survives_a_new_memory_table() {
    let mut front = connect();
    let mut ring = front.ring(0);
    front.set_up(0, &ring, 0);
    front.frontend.set_vring_enable(0, true).unwrap();
    ring.request(&front.memory);
    front.frontend.set_mem_table(&[front.region]).unwrap();
    ring.request(&front.memory);
    front.finish().unwrap();
}

#[test]
fn a_broken_ring_is_reported_by_its_error_descriptor() {
    let mut front = connect();
    let mut ring = front.ring(0);
    front.set_up(0, &ring, 0);
    front.frontend.set_vring_enable(0, true).unwrap();
    ring.driver.offer(99).unwrap();
    ring.kick.write(1).unwrap();
    assert_eq!(ring.error.read().unwrap(), 1);
    front.finish().unwrap();
}

#[test]
fn the_configuration_space_is_read_and_written() {
    let mut front = connect();
    let flags = VhostUserConfigFlags::WRITABLE;
    front.frontend.set_config(3, flags, b"FIG").unwrap();
    let (_, bytes) = front.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
    assert_eq!(bytes, b"conFIG!!");
    assert_eq!(front.frontend.get_queue_num().unwrap(), 3);
    front.finish().unwrap();
}

#[test]
fn rings_outside_of_memory_end_the_connection() {
    let mut front = connect();
    let mut ring = front.ring(0);
    ring.driver = DriverQueue::new(front.memory.clone(), GUEST_BASE + SIZE as u64, 16);
    front.set_up(0, &ring, 0);
    assert!(front.frontend.set_vring_enable(0, true).is_err());
    assert!(front.events.try_recv().is_err());
    assert!(matches!(front.finish(), Err(ServeError::Protocol { .. })));
}

#[test]
fn features_that_are_not_offered_end_the_connection() {
    for features in [VERSION_1, VERSION_1 | PROTOCOL | (1 << 5)] {
        let front = connect();
        assert!(front.frontend.set_features(features).is_err());
        assert!(front.finish().is_err());
    }
}
