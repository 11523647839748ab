//! What a front end has said about memory and rings, and the device that runs on them.
//!
//! ```text
//!  ring:    idle ── kick fd ──▶ started ── enable ──▶ enabled
//!             ▲                    │ ▲                   │
//!             └── stop_ring ───────┘ └───── disable ─────┤
//!             └────────────────── stop_ring ─────────────┘
//!
//!  device:  active as long as there is a started ring and every started ring is enabled
//! ```
//!
//! A front end that uses fewer rings than the device has (QEMU keeps vsock's event queue to itself) never starts the
//! others, and the device gets only those that were started.

use std::{
    fs::File,
    os::fd::{FromRawFd, IntoRawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryRegion, GuestRegionMmap, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    device::{ActivateError, Activation, BrokenFlag, GuestMemory, Interrupt, VirtioDevice},
    queue::ActiveQueue,
    queue_config::QueueConfig,
};

/// Entries that a ring may have at most: the front end chooses, and knows nothing of the device's own limit.
const MAX_RING_SIZE: u16 = 1024;

/// What a front end got wrong, or what failed for it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("The device has no ring {index}")]
    NoRing { index: u32 },
    #[error("Features {features:#x} are not offered")]
    Features { features: u64 },
    #[error("Features cannot change while the device is active")]
    Active,
    #[error("Mapping the guest memory at {address:#x} failed")]
    Map { address: u64, source: vm_memory::mmap::MmapRegionError },
    #[error("Guest memory at {address:#x} with {size} bytes is not possible")]
    Region { address: u64, size: u64 },
    #[error("The regions of guest memory overlap")]
    Layout { source: vm_memory::GuestRegionCollectionError },
    #[error("A ring was started before guest memory was given")]
    NoMemory,
    #[error("Address {address:#x} of a ring is in no region of guest memory")]
    NotMapped { address: u64 },
    #[error("Starting the device failed")]
    Activate { source: ActivateError },
}

/// A region of guest memory.
pub(super) struct Region {
    pub guest_address: u64,
    pub size: u64,
    /// In the front end.
    pub user_address: u64,
    pub file_offset: u64,
    pub file: File,
}

/// Where a ring's parts are in the front end's memory.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RingAddresses {
    pub descriptor: u64,
    pub available: u64,
    pub used: u64,
}

struct Memory {
    guest: Arc<GuestMemory>,
    /// (user address, size, guest address)
    translation: Vec<(u64, u64, u64)>,
}

impl Memory {
    fn map(regions: Vec<Region>) -> Result<Self, SessionError> {
        let translation = regions.iter().map(|r| (r.user_address, r.size, r.guest_address)).collect();
        let mut mapped = Vec::with_capacity(regions.len());
        for region in regions {
            let (address, size) = (region.guest_address, region.size);
            let impossible = || SessionError::Region { address, size };
            let len = usize::try_from(size).map_err(|_| impossible())?;
            let mapping = MmapRegion::from_file(FileOffset::new(region.file, region.file_offset), len)
                .map_err(|source| SessionError::Map { address, source })?;
            mapped.push(GuestRegionMmap::new(mapping, GuestAddress(address)).ok_or_else(impossible)?);
        }
        mapped.sort_by_key(GuestMemoryRegion::start_addr);
        let guest = GuestMemory::from_regions(mapped).map_err(|source| SessionError::Layout { source })?;
        Ok(Self { guest: Arc::new(guest), translation })
    }

    fn guest_address(&self, address: u64) -> Result<u64, SessionError> {
        self.translation
            .iter()
            .find_map(|(user, size, guest)| {
                let offset = address.checked_sub(*user).filter(|offset| offset < size)?;
                guest.checked_add(offset)
            })
            .ok_or(SessionError::NotMapped { address })
    }
}

#[derive(Default)]
struct Ring {
    size: u32,
    addresses: RingAddresses,
    /// Where to go on.
    next: u16,
    /// Given: the ring is started.
    kick: Option<EventFd>,
    enabled: bool,
    /// While the device is active on it: guest address of the used ring.
    active_used: Option<u64>,
}

/// The descriptors by which the device signals. The front end replaces them also while the device is active.
struct Signals {
    rings: Mutex<Vec<RingSignals>>,
}

#[derive(Default)]
struct RingSignals {
    call: Option<EventFd>,
    error: Option<EventFd>,
}

impl Signals {
    fn lock(&self) -> MutexGuard<'_, Vec<RingSignals>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report_broken(&self) {
        for error in self.lock().iter().filter_map(|ring| ring.error.as_ref()) {
            // Fails only when the counter is full, and then the front end has been told.
            drop(error.write(1));
        }
    }
}

impl Interrupt for Signals {
    fn queue(&self, index: u16) {
        if let Some(call) = self.lock().get(usize::from(index)).and_then(|ring| ring.call.as_ref()) {
            // Fails only when the counter is full, and then an interrupt is on its way.
            drop(call.write(1));
        }
    }

    fn config(&self) {
        // There is no channel to the front end: see the module's head.
    }
}

/// A device and its front end's wishes.
pub(super) struct Session {
    device: Box<dyn VirtioDevice>,
    features: u64,
    memory: Option<Memory>,
    rings: Vec<Ring>,
    signals: Arc<Signals>,
    active: bool,
}

impl Session {
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let count = device.queue_sizes().len();
        let rings = std::iter::repeat_with(Ring::default).take(count).collect();
        let signals = std::iter::repeat_with(RingSignals::default).take(count).collect();
        Self {
            device,
            features: 0,
            memory: None,
            rings,
            signals: Arc::new(Signals { rings: Mutex::new(signals) }),
            active: false,
        }
    }

    pub fn device(&mut self) -> &mut dyn VirtioDevice {
        self.device.as_mut()
    }

    pub fn offered_features(&self) -> u64 {
        self.device.features() | (1 << VIRTIO_F_VERSION_1)
    }

    pub fn queue_count(&self) -> u64 {
        u64::try_from(self.rings.len()).unwrap_or(u64::MAX)
    }

    pub fn set_features(&mut self, features: u64) -> Result<(), SessionError> {
        if features & !self.offered_features() != 0 {
            return Err(SessionError::Features { features });
        }
        if self.active && features != self.features {
            return Err(SessionError::Active);
        }
        self.features = features;
        Ok(())
    }

    pub fn set_memory(&mut self, regions: Vec<Region>) -> Result<(), SessionError> {
        let memory = Memory::map(regions)?;
        self.stop();
        self.memory = Some(memory);
        self.update()
    }

    pub fn set_size(&mut self, index: u32, size: u32) -> Result<(), SessionError> {
        self.ring(index)?.size = size;
        Ok(())
    }

    pub fn set_addresses(&mut self, index: u32, addresses: RingAddresses) -> Result<(), SessionError> {
        self.ring(index)?.addresses = addresses;
        Ok(())
    }

    pub fn set_base(&mut self, index: u32, base: u16) -> Result<(), SessionError> {
        self.ring(index)?.next = base;
        Ok(())
    }

    /// Starts a ring.
    pub fn set_kick(&mut self, index: u32, file: File) -> Result<(), SessionError> {
        self.ring(index)?;
        self.stop();
        self.ring(index)?.kick = Some(event_fd(file));
        self.update()
    }

    pub fn set_call(&mut self, index: u32, file: Option<File>) -> Result<(), SessionError> {
        self.signal(index, |ring| ring.call = file.map(event_fd))
    }

    pub fn set_error(&mut self, index: u32, file: Option<File>) -> Result<(), SessionError> {
        self.signal(index, |ring| ring.error = file.map(event_fd))
    }

    pub fn set_enabled(&mut self, index: u32, enabled: bool) -> Result<(), SessionError> {
        if self.ring(index)?.enabled == enabled {
            return Ok(());
        }
        self.stop();
        self.ring(index)?.enabled = enabled;
        self.update()
    }

    /// Stops a ring, and with it the device, and says where the ring goes on.
    pub fn stop_ring(&mut self, index: u32) -> Result<u16, SessionError> {
        self.ring(index)?;
        self.stop();
        let ring = self.ring(index)?;
        ring.kick = None;
        Ok(ring.next)
    }

    /// Stops the device, and remembers where its rings go on.
    pub fn stop(&mut self) {
        if !self.active {
            return;
        }
        self.device.reset();
        self.active = false;
        let Some(memory) = &self.memory else { return };
        for ring in &mut self.rings {
            // Every chain that was popped has been returned, so both indices of the device equal the used index.
            let Some(used) = ring.active_used.take() else { continue };
            let index = memory.guest.load::<u16>(GuestAddress(used.saturating_add(2)), Ordering::SeqCst);
            ring.next = index.map_or(ring.next, u16::from_le);
        }
    }

    /// Starts the device if every started ring is enabled.
    fn update(&mut self) -> Result<(), SessionError> {
        let mut started = self.rings.iter().filter(|ring| ring.kick.is_some()).peekable();
        if self.active || started.peek().is_none() || !started.all(|ring| ring.enabled) {
            return Ok(());
        }
        let memory = self.memory.as_ref().ok_or(SessionError::NoMemory)?;
        let mut queues = Vec::new();
        for (index, ring) in (0u16..).zip(&mut self.rings) {
            ring.active_used = None;
            let Some(kick) = &ring.kick else { continue };
            let config = QueueConfig {
                size: ring.size,
                ready: true,
                desc_table: memory.guest_address(ring.addresses.descriptor)?,
                avail_ring: memory.guest_address(ring.addresses.available)?,
                used_ring: memory.guest_address(ring.addresses.used)?,
                next: ring.next,
                ..QueueConfig::new(MAX_RING_SIZE)
            };
            let failed = |source| SessionError::Activate { source };
            let queue = config
                .build(&memory.guest, self.features)
                .map_err(|source| failed(ActivateError::Queue { index, source }))?;
            let kick = kick.try_clone().map_err(|source| failed(ActivateError::EventFd { source }))?;
            // What the driver made available while no one listened has been kicked for in vain.
            drop(kick.write(1));
            ring.active_used = Some(config.used_ring);
            queues.push(ActiveQueue { index, queue, kick });
        }
        let signals = self.signals.clone();
        let activation = Activation {
            memory: memory.guest.clone(),
            queues,
            interrupt: self.signals.clone(),
            features: self.features,
            broken: BrokenFlag::new(move || signals.report_broken()),
        };
        self.device.activate(activation).map_err(|source| SessionError::Activate { source })?;
        self.active = true;
        Ok(())
    }

    fn ring(&mut self, index: u32) -> Result<&mut Ring, SessionError> {
        let ring = usize::try_from(index).ok().and_then(|index| self.rings.get_mut(index));
        ring.ok_or(SessionError::NoRing { index })
    }

    fn signal(&mut self, index: u32, change: impl FnOnce(&mut RingSignals)) -> Result<(), SessionError> {
        let mut rings = self.signals.lock();
        let ring = usize::try_from(index).ok().and_then(|index| rings.get_mut(index));
        ring.map(change).ok_or(SessionError::NoRing { index })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop();
    }
}

fn event_fd(file: File) -> EventFd {
    // SAFETY: `into_raw_fd` has given up ownership of the open descriptor, so it has one owner again. If the front end
    // has sent something other than an event descriptor, reads and writes of it fail or mean nothing.
    unsafe { EventFd::from_raw_fd(file.into_raw_fd()) }
}
