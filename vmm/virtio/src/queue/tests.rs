//! Rings from the driver's side.

use std::sync::Arc;

use virtio_bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};

use super::*;
use crate::test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

fn set_up(features: u64) -> (Arc<GuestMemory>, DriverQueue, ActiveQueue) {
    let memory = memory(0x2_0000).unwrap();
    let driver = DriverQueue::new(memory.clone(), 0x1000, 8);
    let queue = driver.activate(3, features).unwrap();
    (memory, driver, queue)
}

fn walk_one(descriptors: &[Descriptor]) -> Result<Segments, RingError> {
    let (memory, driver, _queue) = set_up(0);
    for (index, descriptor) in (0..).zip(descriptors) {
        driver.set_descriptor(index, *descriptor).unwrap();
    }
    Segments::walk(&memory, GuestAddress(0x1000), 8, 0)
}

#[test]
fn bytes_travel_across_segments() {
    let (memory, mut driver, mut queue) = set_up(0);
    memory.write_slice(b"abcdef", GuestAddress(0x8000)).unwrap();
    let head = driver
        .add(&[
            Buffer::readable(0x8000, 2),
            Buffer::readable(0x8002, 4),
            Buffer::writable(0x9000, 3),
            Buffer::writable(0xa000, 5),
        ])
        .unwrap();
    let chain = queue.pop(&memory).unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (6, 8));
    let mut bytes = [0; 4];
    chain.read(1, &mut bytes).unwrap();
    assert_eq!(&bytes, b"bcde");
    chain.write(1, b"12345").unwrap();
    assert!(matches!(chain.read(3, &mut bytes), Err(RingError::BeyondChain { offset: 3, wanted: 4, len: 6 })));
    assert!(matches!(chain.write(usize::MAX, b"x"), Err(RingError::BeyondChain { .. })));
    chain.complete(6).unwrap();
    assert_eq!(driver.used().unwrap(), Some((head, 6)));
    let mut written = [0; 3];
    memory.read_slice(&mut written, GuestAddress(0x9000)).unwrap();
    assert_eq!(&written, b"\x0012");
    memory.read_slice(&mut written, GuestAddress(0xa000)).unwrap();
    assert_eq!(&written, b"345");
}

#[test]
fn a_dropped_chain_goes_back_to_the_used_ring() {
    let (memory, mut driver, mut queue) = set_up(0);
    let head = driver.add(&[Buffer::readable(0x8000, 2)]).unwrap();
    drop(queue.pop(&memory).unwrap().unwrap());
    assert_eq!(driver.used().unwrap(), Some((head, 0)));
    assert!(queue.pop(&memory).unwrap().is_none());
}

#[test]
fn a_chain_that_is_put_back_is_popped_again() {
    let (memory, mut driver, mut queue) = set_up(0);
    driver.add(&[Buffer::readable(0x8000, 2)]).unwrap();
    queue.pop(&memory).unwrap().unwrap().put_back();
    assert_eq!(driver.used().unwrap(), None);
    assert_eq!(queue.pop(&memory).unwrap().unwrap().readable_len(), 2);
}

#[test]
fn chains_that_no_driver_may_make_are_refused() {
    let looped = [Descriptor::new(0x8000, 1, NEXT, 1), Descriptor::new(0x8000, 1, NEXT, 0)];
    assert!(matches!(walk_one(&looped), Err(RingError::TooLong { .. })));
    let out_of_table = [Descriptor::new(0x8000, 1, NEXT, 8)];
    assert!(matches!(walk_one(&out_of_table), Err(RingError::Index { index: 8, size: 8 })));
    let out_of_memory = [Descriptor::new(0x1_ffff, 2, 0, 0)];
    assert!(matches!(walk_one(&out_of_memory), Err(RingError::OutsideMemory { .. })));
    let wrapping = [Descriptor::new(u64::MAX, 2, 0, 0)];
    assert!(matches!(walk_one(&wrapping), Err(RingError::OutsideMemory { .. })));
    let out_of_order = [Descriptor::new(0x8000, 1, NEXT | WRITE, 1), Descriptor::new(0x8000, 1, 0, 0)];
    assert!(matches!(walk_one(&out_of_order), Err(RingError::Order)));
}

#[test]
fn heads_beyond_the_table_are_refused() {
    let (memory, mut driver, mut queue) = set_up(0);
    driver.offer(8).unwrap();
    assert!(matches!(queue.pop(&memory), Err(RingError::Index { index: 8, size: 8 })));
}

#[test]
fn more_available_chains_than_entries_are_refused() {
    let (memory, driver, mut queue) = set_up(0);
    driver.set_avail_index(9).unwrap();
    assert!(matches!(queue.pop(&memory), Err(RingError::Rings { .. })));
}

#[test]
fn an_indirect_table_is_walked() {
    let (memory, driver, _queue) = set_up(0);
    for (at, descriptor) in
        [(0x8000, Descriptor::new(0x9000, 4, NEXT, 1)), (0x8010, Descriptor::new(0xa000, 8, WRITE, 0))]
    {
        memory.write_obj(RawDescriptor::from(descriptor), GuestAddress(at)).unwrap();
    }
    driver.set_descriptor(0, Descriptor::new(0x8000, 32, INDIRECT, 0)).unwrap();
    let segments = Segments::walk(&memory, GuestAddress(0x1000), 8, 0).unwrap();
    assert_eq!(segments.readable, [Segment { address: GuestAddress(0x9000), len: 4 }]);
    assert_eq!(segments.writable, [Segment { address: GuestAddress(0xa000), len: 8 }]);
    // The table ends before the descriptor that the first one names.
    driver.set_descriptor(0, Descriptor::new(0x8000, 16, INDIRECT, 0)).unwrap();
    let short = Segments::walk(&memory, GuestAddress(0x1000), 8, 0);
    assert!(matches!(short, Err(RingError::Index { index: 1, size: 1 })));
}

#[test]
fn bad_indirect_tables_are_refused() {
    for (len, flags) in [(0, INDIRECT), (17, INDIRECT), (16, INDIRECT | NEXT), (0x10_0000, INDIRECT)] {
        let result = walk_one(&[Descriptor::new(0x8000, len, flags, 1)]);
        assert!(matches!(result, Err(RingError::Indirect { .. })), "{len} {flags}");
    }
    // Descriptor 0 names the table that it lies in.
    let nested = walk_one(&[Descriptor::new(0x1000, 16, INDIRECT, 0)]);
    assert!(matches!(nested, Err(RingError::Indirect { .. })));
    let outside = walk_one(&[Descriptor::new(u64::MAX - 0xf, 32, INDIRECT, 0)]);
    assert!(matches!(outside, Err(RingError::Table { .. })));
}

#[test]
fn lengths_that_add_up_to_more_than_4_gib_are_refused() {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 3 << 30)]).unwrap();
    for (at, next) in [(0x1000, 1), (0x1010, 0)] {
        let descriptor = Descriptor::new(0, 2 << 30, if next == 1 { NEXT } else { 0 }, next);
        memory.write_obj(RawDescriptor::from(descriptor), GuestAddress(at)).unwrap();
    }
    let result = Segments::walk(&memory, GuestAddress(0x1000), 8, 0);
    assert!(matches!(result, Err(RingError::TooMany)));
}

#[test]
fn serving_answers_everything_and_interrupts_once() {
    let (memory, mut driver, mut queue) = set_up(0);
    let (interrupt, signals) = TestInterrupt::new();
    for _ in 0..3 {
        driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
    }
    queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
    assert_eq!(signals.try_iter().collect::<Vec<_>>(), [Signal::Queue(3)]);
    assert_eq!(std::iter::from_fn(|| driver.used().unwrap()).count(), 3);
    assert!(queue.kick.read().is_err());
    // A kick for nothing is answered by nothing.
    queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
    assert_eq!(signals.try_iter().count(), 0);
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let (memory, mut driver, mut queue) = set_up(0);
    let (interrupt, signals) = TestInterrupt::new();
    driver.suppress_interrupts(true).unwrap();
    driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
    queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
    assert_eq!(signals.try_iter().count(), 0);
}

#[test]
fn with_event_idx_the_driver_says_when_it_wants_to_know() {
    let (memory, mut driver, mut queue) = set_up(1 << VIRTIO_RING_F_EVENT_IDX);
    let (interrupt, signals) = TestInterrupt::new();
    driver.set_used_event(1).unwrap();
    for expected in [0, 1, 0] {
        driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
        queue.serve(&memory, interrupt.as_ref(), |chain| chain.complete(2)).unwrap();
        assert_eq!(signals.try_iter().count(), expected);
    }
}

#[test]
fn a_driver_that_never_stops_is_served_a_queue_at_a_time() {
    let (memory, mut driver, mut queue) = set_up(0);
    let (interrupt, signals) = TestInterrupt::new();
    let mut served = 0;
    driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
    queue
        .serve(&memory, interrupt.as_ref(), |chain| {
            served += 1;
            driver.add(&[Buffer::writable(0x8000, 2)]).unwrap();
            chain.complete(2)
        })
        .unwrap();
    assert_eq!(served, 8);
    assert_eq!(queue.kick.read().unwrap(), 1);
    assert_eq!(signals.try_iter().count(), 1);
}
