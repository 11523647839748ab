//! Entropy from the host. Section 5.4.
//!
//! One queue; the worker fills what the driver offers with the host kernel's random bytes.

use std::{io, sync::Arc};

use dewar_virtio::{
    ActivateError, Activation, ActiveQueue, Chain, GuestMemory, Interrupt, RingError, VirtioDevice,
    worker::{EventSet, Handler, Registry, Worker},
};
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_RNG,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

const QUEUE_SIZES: [u16; 1] = [64];

/// Bytes given for one request. Less than what was asked for is allowed: section 5.4.6.
const MAX_REQUEST: usize = 4096;

/// The device.
#[derive(Default)]
pub struct Rng {
    worker: Option<Worker<RngHandler>>,
}

impl Rng {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC)
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let queue = activation.take_queue(0)?;
        let handler = RngHandler { queue, memory: activation.memory, interrupt: activation.interrupt };
        let worker = Worker::start("virtio-rng", handler, activation.broken);
        self.worker = Some(worker.map_err(|source| ActivateError::Worker { source })?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
    }
}

struct RngHandler {
    queue: ActiveQueue,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
}

impl Handler for RngHandler {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.add(&self.queue.kick, 0, EventSet::IN)
    }

    fn ready(&mut self, _token: u64, _events: EventSet, _registry: &Registry) -> Result<(), RingError> {
        self.queue.acknowledge_kick();
        self.queue.serve(&self.memory, self.interrupt.as_ref(), fill)
    }
}

fn fill(chain: Chain<'_>) -> Result<(), RingError> {
    let mut buffer = [0; MAX_REQUEST];
    let wanted = chain.writable_len().min(MAX_REQUEST);
    let bytes = buffer.get_mut(..wanted).unwrap_or_default();
    // The host's generator is seeded long before a VMM can run; if it still fails, the guest gets nothing and asks again.
    let got = getrandom(&mut *bytes, GetRandomFlags::empty()).unwrap_or(0);
    let bytes = bytes.get(..got).unwrap_or_default();
    chain.write(0, bytes)?;
    chain.complete(u32::try_from(got).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use dewar_virtio::{
        BrokenFlag,
        test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory},
    };
    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    #[test]
    fn requests_are_filled_up_to_the_limit() {
        let memory = memory(0x2_0000).unwrap();
        let mut driver = DriverQueue::new(memory.clone(), 0x1000, 64);
        let queue = driver.activate(0, 0).unwrap();
        let kick = queue.kick.try_clone().unwrap();
        let (interrupt, signals) = TestInterrupt::new();
        let mut rng = Rng::new();
        let broken = BrokenFlag::new(|| ());
        let activation =
            Activation { memory: memory.clone(), queues: vec![queue], interrupt, features: 0, broken: broken.clone() };
        driver.add(&[Buffer::writable(0x8000, 64)]).unwrap();
        driver.add(&[Buffer::writable(0x9000, 0x8000)]).unwrap();
        driver.add(&[Buffer::readable(0x8000, 64)]).unwrap();
        rng.activate(activation).unwrap();
        kick.write(1).unwrap();
        assert_eq!(signals.recv(), Ok(Signal::Queue(0)));
        rng.reset();
        let lengths: Vec<u32> = std::iter::from_fn(|| driver.used().unwrap()).map(|(_, len)| len).collect();
        assert_eq!(lengths, [64, 4096, 0]);
        let mut bytes = [0; 64];
        memory.read_slice(&mut bytes, GuestAddress(0x8000)).unwrap();
        assert_ne!(bytes, [0; 64]);
        let mut behind = [0; 1];
        memory.read_slice(&mut behind, GuestAddress(0xa000)).unwrap();
        assert_eq!(behind, [0]);
        assert!(!broken.is_set());
    }

    #[test]
    fn a_missing_queue_is_refused() {
        let (interrupt, _signals) = TestInterrupt::new();
        let memory = memory(0x1000).unwrap();
        let broken = BrokenFlag::new(|| ());
        let activation = Activation { memory, queues: vec![], interrupt, features: 0, broken };
        assert!(matches!(Rng::new().activate(activation), Err(ActivateError::MissingQueue { index: 0 })));
    }
}
