//! A console of one port. Section 5.3, without `VIRTIO_CONSOLE_F_MULTIPORT`.
//!
//! What the guest prints goes to a bounded [`Sink`]; what a host descriptor has to say, if there is one, goes to the
//! guest. Both run in one worker.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use dewar_virtio::{
    ActivateError, Activation, ActiveQueue, Chain, GuestMemory, Interrupt, RingError, VirtioDevice,
    worker::{EventSet, Handler, Registry, Worker},
};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_CONSOLE,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use crate::sink::Sink;

const QUEUE_SIZES: [u16; 2] = [64, 64];
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

const RECEIVE_KICK: u64 = 0;
const TRANSMIT_KICK: u64 = 1;
const INPUT: u64 = 2;

/// Bytes copied at once.
const BLOCK: usize = 4096;

/// Bytes taken from one chain: longer ones are cut, since a sink keeps no more than a tail anyway.
const MAX_CHAIN: usize = 64 << 10;

/// The device.
pub struct Console {
    /// With the worker while the device is active.
    ends: Option<Ends>,
    worker: Option<Worker<ConsoleHandler>>,
}

struct Ends {
    sink: Box<dyn Sink>,
    input: Option<File>,
}

impl Console {
    /// `input`, if given, is a descriptor that can be waited for: a pipe, socket or terminal.
    #[must_use]
    pub fn new(sink: Box<dyn Sink>, input: Option<File>) -> Self {
        Self { ends: Some(Ends { sink, input }), worker: None }
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
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
        let (receive, transmit) = (activation.take_queue(RECEIVE)?, activation.take_queue(TRANSMIT)?);
        let ends = self.ends.take().ok_or(ActivateError::AlreadyActive)?;
        let handler = ConsoleHandler {
            receive,
            transmit,
            memory: activation.memory,
            interrupt: activation.interrupt,
            ends,
            waiting_for_input: false,
        };
        let worker = Worker::start("virtio-console", handler, activation.broken);
        self.worker = Some(worker.map_err(|source| ActivateError::Worker { source })?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(handler) = self.worker.take().and_then(Worker::stop) {
            self.ends = Some(handler.ends);
        }
    }
}

struct ConsoleHandler {
    receive: ActiveQueue,
    transmit: ActiveQueue,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    ends: Ends,
    /// The input is registered: the driver has buffers for it, or may have.
    waiting_for_input: bool,
}

impl Handler for ConsoleHandler {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.add(&self.receive.kick, RECEIVE_KICK, EventSet::IN)?;
        registry.add(&self.transmit.kick, TRANSMIT_KICK, EventSet::IN)?;
        if let Some(input) = &self.ends.input {
            registry.add(input, INPUT, EventSet::IN)?;
            self.waiting_for_input = true;
        }
        Ok(())
    }

    fn ready(&mut self, token: u64, _events: EventSet, registry: &Registry) -> Result<(), RingError> {
        match token {
            RECEIVE_KICK => {
                self.receive.acknowledge_kick();
                self.resume_input(registry);
                Ok(())
            }
            TRANSMIT_KICK => {
                self.transmit.acknowledge_kick();
                let sink = self.ends.sink.as_mut();
                self.transmit.serve(&self.memory, self.interrupt.as_ref(), |chain| print(sink, chain))
            }
            _ => self.take_input(registry),
        }
    }
}

impl ConsoleHandler {
    /// The driver has offered buffers: input may come again.
    fn resume_input(&mut self, registry: &Registry) {
        if let Some(input) = self.ends.input.as_ref().filter(|_| !self.waiting_for_input) {
            self.waiting_for_input = registry.add(input, INPUT, EventSet::IN).is_ok();
        }
    }

    /// Waits no more for input, until the driver offers buffers.
    fn pause_input(&mut self, registry: &Registry) {
        if let Some(input) = &self.ends.input {
            drop(registry.remove(input));
            self.waiting_for_input = false;
        }
    }

    fn take_input(&mut self, registry: &Registry) -> Result<(), RingError> {
        if !self.waiting_for_input {
            return Ok(());
        }
        let Some(chain) = self.receive.pop(&self.memory)? else {
            if !self.receive.enable_kicks(&self.memory)? {
                self.pause_input(registry);
            }
            return Ok(());
        };
        let mut block = [0; BLOCK];
        let room = block.get_mut(..chain.writable_len().min(BLOCK)).unwrap_or_default();
        if room.is_empty() {
            // A buffer of no size is returned unused.
            drop(chain);
            return self.receive.notify(&self.memory, self.interrupt.as_ref());
        }
        let Some(mut input) = self.ends.input.as_ref() else {
            chain.put_back();
            return Ok(());
        };
        match input.read(room) {
            Ok(count) if count > 0 => {
                chain.write(0, room.get(..count).unwrap_or_default())?;
                chain.complete(u32::try_from(count).unwrap_or_default())?;
                self.receive.notify(&self.memory, self.interrupt.as_ref())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {
                chain.put_back();
                Ok(())
            }
            // The input has ended, or is broken: the guest is told nothing, as with a line that nobody types on.
            Ok(_) | Err(_) => {
                chain.put_back();
                self.pause_input(registry);
                self.ends.input = None;
                Ok(())
            }
        }
    }
}

fn print(sink: &mut dyn Sink, chain: Chain<'_>) -> Result<(), RingError> {
    let mut block = [0; BLOCK];
    let len = chain.readable_len().min(MAX_CHAIN);
    for offset in (0..len).step_by(BLOCK) {
        let bytes = block.get_mut(..len.saturating_sub(offset).min(BLOCK)).unwrap_or_default();
        chain.read(offset, bytes)?;
        sink.write(bytes);
    }
    chain.complete(0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{fd::OwnedFd, unix::net::UnixStream},
        sync::mpsc::Receiver,
    };

    use dewar_virtio::{
        BrokenFlag,
        test_utils::{Buffer, DriverQueue, Signal, TestInterrupt, memory},
    };
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::EventFd;

    use super::*;
    use crate::sink::TailBuffer;

    struct Driver {
        memory: Arc<GuestMemory>,
        receive: DriverQueue,
        transmit: DriverQueue,
        kicks: [EventFd; 2],
        signals: Receiver<Signal>,
        broken: Receiver<()>,
    }

    fn start(console: &mut Console) -> Driver {
        let memory = memory(0x4_0000).unwrap();
        let receive = DriverQueue::new(memory.clone(), 0x1000, 64);
        let transmit = DriverQueue::new(memory.clone(), 0x5000, 64);
        let queues = vec![receive.activate(RECEIVE, 0).unwrap(), transmit.activate(TRANSMIT, 0).unwrap()];
        let kicks = [0, 1].map(|index: usize| queues[index].kick.try_clone().unwrap());
        let (interrupt, signals) = TestInterrupt::new();
        let (sender, broken) = std::sync::mpsc::channel();
        let sender = std::sync::Mutex::new(sender);
        let flag = BrokenFlag::new(move || sender.lock().unwrap().send(()).unwrap());
        console.activate(Activation { memory: memory.clone(), queues, interrupt, features: 0, broken: flag }).unwrap();
        Driver { memory, receive, transmit, kicks, signals, broken }
    }

    #[test]
    fn output_reaches_the_sink_also_after_a_reset() {
        let sink = TailBuffer::new(100);
        let mut console = Console::new(Box::new(sink.clone()), None);
        for expected in ["hello", "hellohello"] {
            let mut driver = start(&mut console);
            driver.memory.write_slice(b"hello", GuestAddress(0x1_0000)).unwrap();
            driver.transmit.add(&[Buffer::readable(0x1_0000, 2), Buffer::readable(0x1_0002, 3)]).unwrap();
            driver.kicks[1].write(1).unwrap();
            assert_eq!(driver.signals.recv(), Ok(Signal::Queue(TRANSMIT)));
            assert_eq!(sink.contents(), expected.as_bytes());
            console.reset();
        }
    }

    #[test]
    fn input_waits_for_buffers() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let input = File::from(OwnedFd::from(theirs));
        let mut console = Console::new(Box::new(TailBuffer::new(100)), Some(input));
        let mut driver = start(&mut console);
        ours.write_all(b"abc").unwrap();
        for (address, expected) in [(0x1_0000, b"ab"), (0x1_1000, b"c\0")] {
            driver.receive.add(&[Buffer::writable(address, 2)]).unwrap();
            driver.kicks[0].write(1).unwrap();
            assert_eq!(driver.signals.recv(), Ok(Signal::Queue(RECEIVE)));
            let mut bytes = [0; 2];
            driver.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
            assert_eq!(&bytes, expected);
        }
        drop(ours);
        console.reset();
    }

    #[test]
    fn a_broken_ring_is_reported() {
        let mut console = Console::new(Box::new(TailBuffer::new(100)), None);
        let mut driver = start(&mut console);
        driver.transmit.offer(64).unwrap();
        driver.kicks[1].write(1).unwrap();
        assert_eq!(driver.broken.recv(), Ok(()));
    }
}
