//! A device for the tests of transports: it writes one byte to every chain, and tells the test what was done to it.

use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use crate::{
    ActivateError, Activation, ActiveQueue, GuestMemory, Interrupt, RingError, VirtioDevice, read_config_bytes,
    worker::{EventSet, Handler, Registry, Worker},
};

pub const DEVICE_TYPE: u32 = 42;
pub const ANSWER: u8 = 0x5a;
pub const FEATURES: u64 = (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << 3) | (1 << 40);

/// What happened to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// With these queues and features.
    Activated(Vec<u16>, u64),
    Reset,
}

pub struct TestDevice {
    config: [u8; 8],
    events: Sender<Event>,
    worker: Option<Worker<Answer>>,
}

impl TestDevice {
    pub fn new() -> (Box<Self>, Receiver<Event>) {
        let (events, receiver) = channel();
        (Box::new(Self { config: *b"config!!", events, worker: None }), receiver)
    }
}

impl VirtioDevice for TestDevice {
    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> &[u16] {
        &[16, 16, 16]
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.config[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        assert!(self.worker.is_none());
        let indices = activation.queues.iter().map(|queue| queue.index).collect();
        self.events.send(Event::Activated(indices, activation.features)).unwrap();
        let Activation { memory, queues, interrupt, broken, .. } = activation;
        let worker = Worker::start("test", Answer { memory, queues, interrupt }, broken);
        self.worker = Some(worker.map_err(|source| ActivateError::Worker { source })?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
        // The test may be over.
        let _ = self.events.send(Event::Reset);
    }
}

struct Answer {
    memory: Arc<GuestMemory>,
    queues: Vec<ActiveQueue>,
    interrupt: Arc<dyn Interrupt>,
}

impl Handler for Answer {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        (0..).zip(&self.queues).try_for_each(|(token, queue)| registry.add(&queue.kick, token, EventSet::IN))
    }

    fn ready(&mut self, token: u64, _events: EventSet, _registry: &Registry) -> Result<(), RingError> {
        let queue = &mut self.queues[usize::try_from(token).unwrap()];
        queue.acknowledge_kick();
        queue.serve(&self.memory, self.interrupt.as_ref(), |chain| {
            chain.write(0, &[ANSWER])?;
            chain.complete(1)
        })
    }
}
