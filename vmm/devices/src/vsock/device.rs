//! The device as its transport sees it, and the handler that pumps packets between its queues and the muxer in the
//! device's one thread.

use std::{io, path::PathBuf, sync::Arc};

use dewar_virtio::{
    ActivateError, Activation, ActiveQueue, GuestMemory, Interrupt, RingError, VirtioDevice,
    queue::Chain,
    read_config_bytes,
    worker::{EventSet, Handler, Registry, Worker},
};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_VSOCK,
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};

use super::{
    VsockError,
    buffer_ring::BufferRing,
    counters::Counters,
    muxer::{Muxer, Turn},
    packet::{HEADER_SIZE, Header},
    socket::Listener,
};

/// Receive, transmit, event. Nothing is ever sent on the last: it is for a guest that moved to another host.
const QUEUE_SIZES: [u16; 3] = [128, 128, 128];
const RX: u16 = 0;
const TX: u16 = 1;

/// `VIRTIO_VSOCK_F_STREAM`: section 5.10.3.
const FEATURE_STREAM: u32 = 0;

const TOKEN_RX: u64 = 0;
const TOKEN_TX: u64 = 1;
const TOKEN_LISTENER: u64 = 2;
const FIRST_SOCKET_TOKEN: u64 = 3;

/// Turns to send, and packets received, before other events are looked at.
const BUDGET: u16 = 128;

/// Connections, with host programs that have not said yet which port they want. Past it, everyone is turned away.
const MAX_CONNECTIONS: usize = 1024;

/// A virtio-vsock device. Its unix socket exists as long as it does; host programs that connect while no driver runs wait.
pub struct Vsock {
    guest_cid: u64,
    pub(super) max_connections: usize,
    listener: Arc<Listener>,
    counters: Arc<Counters>,
    worker: Option<Worker<Pump>>,
}

impl Vsock {
    /// A device for the guest with this CID. Host programs connect to `path`, and listen for the guest at `<path>_<port>`.
    pub fn new(guest_cid: u64, path: PathBuf) -> Result<Self, VsockError> {
        // 0xffffffff is VMADDR_CID_ANY; the upper half is reserved.
        if !(3..u64::from(u32::MAX)).contains(&guest_cid) {
            return Err(VsockError::GuestCid { cid: guest_cid });
        }
        let listener = Arc::new(Listener::bind(path)?);
        Ok(Self { guest_cid, max_connections: MAX_CONNECTIONS, listener, counters: Arc::default(), worker: None })
    }

    /// The device's figures, which can be read at any time.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        (1 << VIRTIO_RING_F_EVENT_IDX) | (1 << VIRTIO_RING_F_INDIRECT_DESC) | (1 << FEATURE_STREAM)
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        if self.worker.is_some() {
            return Err(ActivateError::AlreadyActive);
        }
        let muxer = Muxer::new(
            self.guest_cid,
            self.listener.clone(),
            FIRST_SOCKET_TOKEN,
            self.max_connections,
            self.counters.clone(),
        );
        let pump = Pump {
            rx: activation.take_queue(RX)?,
            tx: activation.take_queue(TX)?,
            memory: activation.memory,
            interrupt: activation.interrupt,
            listener: self.listener.clone(),
            muxer,
            counters: self.counters.clone(),
        };
        let worker =
            Worker::start("vsock", pump, activation.broken).map_err(|source| ActivateError::Worker { source })?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        // Ends every connection: their guest side is gone.
        self.worker = None;
    }
}

/// What runs in the device's thread.
struct Pump {
    rx: ActiveQueue,
    tx: ActiveQueue,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    listener: Arc<Listener>,
    muxer: Muxer,
    counters: Arc<Counters>,
}

impl Handler for Pump {
    fn register(&mut self, registry: &Registry) -> io::Result<()> {
        registry.add(&self.rx.kick, TOKEN_RX, EventSet::IN)?;
        registry.add(&self.tx.kick, TOKEN_TX, EventSet::IN)?;
        self.listener.watch(registry, TOKEN_LISTENER)?;
        // The driver may have kicked before there was anyone to hear it.
        self.tx.kick.write(1)
    }

    fn ready(&mut self, token: u64, events: EventSet, registry: &Registry) -> Result<(), RingError> {
        match token {
            TOKEN_RX => self.rx.acknowledge_kick(),
            TOKEN_TX => self.tx.acknowledge_kick(),
            TOKEN_LISTENER => self.muxer.accept(registry),
            socket => self.muxer.socket_event(socket, events),
        }
        self.receive_packets(registry)?;
        let held_back = !self.muxer.takes_packets();
        self.send_packets()?;
        if held_back && self.muxer.takes_packets() {
            wake(&self.tx);
        }
        self.tx.notify(&self.memory, self.interrupt.as_ref())?;
        self.rx.notify(&self.memory, self.interrupt.as_ref())?;
        self.muxer.resume_accepting(registry);
        Ok(())
    }
}

impl Pump {
    /// Takes what the guest has sent, as long as it can be answered.
    fn receive_packets(&mut self, registry: &Registry) -> Result<(), RingError> {
        let mut budget = BUDGET;
        loop {
            self.tx.disable_kicks(&self.memory)?;
            while budget > 0 && self.muxer.takes_packets() {
                let Some(chain) = self.tx.pop(&self.memory)? else { break };
                receive_packet(&chain, &mut self.muxer, &self.counters, registry)?;
                chain.complete(0)?;
                budget = budget.saturating_sub(1);
            }
            if !self.muxer.takes_packets() {
                // Goes on when the guest provides buffers for the answers, which wakes this thread as well.
                return Ok(());
            }
            if !self.tx.enable_kicks(&self.memory)? {
                return Ok(());
            }
            if budget == 0 {
                wake(&self.tx);
                return Ok(());
            }
        }
    }

    /// Sends what there is for the guest, as long as it has buffers.
    fn send_packets(&mut self) -> Result<(), RingError> {
        self.rx.disable_kicks(&self.memory)?;
        for _ in 0..BUDGET {
            match self.muxer.send_next(&mut BufferRing::new(&mut self.rx, &self.memory))? {
                Turn::Sent => {}
                Turn::Idle => return Ok(()),
                Turn::Starved => {
                    if !self.rx.enable_kicks(&self.memory)? {
                        return Ok(());
                    }
                }
            }
        }
        wake(&self.rx);
        Ok(())
    }
}

fn receive_packet(
    chain: &Chain<'_>,
    muxer: &mut Muxer,
    counters: &Counters,
    registry: &Registry,
) -> Result<(), RingError> {
    let mut wire = [0; HEADER_SIZE];
    if chain.readable_len() < HEADER_SIZE {
        counters.malformed.add(1);
        return Ok(());
    }
    chain.read(0, &mut wire)?;
    let header = Header::from_wire(&wire);
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    let payload = match chain.readable_slices(HEADER_SIZE, len) {
        Ok(slices) => Some(slices),
        Err(RingError::BeyondChain { .. }) => None,
        Err(error) => return Err(error),
    };
    muxer.receive(&header, payload.as_deref(), registry);
    Ok(())
}

/// Has the worker come back to this queue after other events.
fn wake(queue: &ActiveQueue) {
    // Fails only when the counter is full, and then the worker is about to come back anyway.
    let _ = queue.kick.write(1);
}
