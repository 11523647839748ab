//! A device together with what its driver has reached: status, features and queues. Every rule on what may be changed
//! when is here; transports only decode registers and messages. Section 3.1.
//!
//! Not shared between threads: the owner of the transport serializes access.

use std::{error::Error, sync::Arc};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{
    device::{ActivateError, Activation, BrokenFlag, GuestMemory, Interrupt, VirtioDevice, has_feature},
    queue::ActiveQueue,
    queue_config::QueueConfig,
    status::{DRIVER, FAILED, NEEDS_RESET, Status, Step},
};

/// A device and what its driver has done to it so far.
pub struct Lifecycle {
    device: Box<dyn VirtioDevice>,
    memory: Arc<GuestMemory>,
    interrupt: Arc<dyn Interrupt>,
    status: Status,
    driver_features: u64,
    queues: Vec<QueueConfig>,
    kicks: Vec<EventFd>,
    /// Of the present activation.
    broken: Option<BrokenFlag>,
    /// Activation failed: the driver is told so until it resets the device.
    failed_activation: Option<ActivateError>,
    illegal_writes: u64,
}

impl Lifecycle {
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: Arc<GuestMemory>,
        interrupt: Arc<dyn Interrupt>,
    ) -> std::io::Result<Self> {
        let queues: Vec<_> = device.queue_sizes().iter().map(|size| QueueConfig::new(*size)).collect();
        let kicks = queues.iter().map(|_| EventFd::new(EFD_NONBLOCK)).collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            memory,
            interrupt,
            status: Status::default(),
            driver_features: 0,
            queues,
            kicks,
            broken: None,
            failed_activation: None,
            illegal_writes: 0,
        })
    }

    #[must_use]
    pub fn device(&self) -> &dyn VirtioDevice {
        self.device.as_ref()
    }

    /// One for each queue, by index, the same for the device's whole life.
    #[must_use]
    pub fn kicks(&self) -> &[EventFd] {
        &self.kicks
    }

    #[must_use]
    pub fn offered_features(&self) -> u64 {
        self.device.features() | (1 << VIRTIO_F_VERSION_1)
    }

    /// The status as the driver reads it.
    #[must_use]
    pub fn status(&self) -> u32 {
        let broken = self.failed_activation.is_some() || self.broken.as_ref().is_some_and(BrokenFlag::is_set);
        self.status.bits() | if broken { NEEDS_RESET } else { 0 }
    }

    /// Why the device needs a reset, if it does and the reason is known.
    #[must_use]
    pub fn fault(&self) -> Option<&(dyn Error + 'static)> {
        match &self.failed_activation {
            Some(error) => Some(error),
            None => self.broken.as_ref()?.cause().map(|cause| cause as &dyn Error),
        }
    }

    /// How often the driver has tried what it may not.
    #[must_use]
    pub fn illegal_writes(&self) -> u64 {
        self.illegal_writes
    }

    /// Counts a write that the driver may not do, and that was ignored.
    pub fn note_illegal_write(&mut self) {
        self.illegal_writes = self.illegal_writes.saturating_add(1);
    }

    /// Replaces the low or the high half of the features that the driver accepts, unless they are fixed by now.
    pub fn set_driver_features(&mut self, high_half: bool, value: u32) {
        if !self.status.features_open() {
            return self.note_illegal_write();
        }
        let (low, high) = (self.driver_features & 0xffff_ffff, self.driver_features >> 32);
        self.driver_features = if high_half { low | (u64::from(value) << 32) } else { u64::from(value) | (high << 32) };
    }

    #[must_use]
    pub fn queue(&self, index: u32) -> Option<&QueueConfig> {
        usize::try_from(index).ok().and_then(|index| self.queues.get(index))
    }

    /// Changes a queue's set-up, unless there is no such queue or it may not be changed now.
    pub fn configure_queue(&mut self, index: u32, change: impl FnOnce(&mut QueueConfig)) {
        let open = self.status.queues_open();
        let queue = usize::try_from(index).ok().and_then(|index| self.queues.get_mut(index));
        match queue {
            Some(queue) if open => change(queue),
            _ => self.note_illegal_write(),
        }
    }

    /// Wakes the device for queue `index`. Nothing happens if there is no such queue.
    pub fn kick(&mut self, index: u32) {
        match usize::try_from(index).ok().and_then(|index| self.kicks.get(index)) {
            // Fails only when the counter is full, and then the device is about to wake anyway.
            Some(kick) => drop(kick.write(1)),
            None => self.note_illegal_write(),
        }
    }

    /// Writes to the device's configuration space, if the driver has come far enough.
    pub fn write_config(&mut self, offset: u64, data: &[u8]) {
        if self.status.has(DRIVER) && !self.status.has(FAILED) {
            self.device.write_config(offset, data);
        } else {
            self.note_illegal_write();
        }
    }

    /// Takes the driver's write to the status field. A step that it may not do is counted and ignored.
    pub fn write_status(&mut self, value: u32) {
        match self.status.step(value) {
            Err(_) => self.note_illegal_write(),
            Ok(Step::Reset) => self.reset(),
            // A refused FEATURES_OK is read back as absent: section 3.1.1, step 6.
            Ok(Step::FeaturesOk) if !self.features_acceptable() => self.note_illegal_write(),
            Ok(Step::DriverOk) => {
                self.status.grant(Step::DriverOk);
                if let Err(error) = self.activate() {
                    self.failed_activation = Some(error);
                    self.interrupt.config();
                }
            }
            Ok(step) => self.status.grant(step),
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered_features() == 0 && has_feature(self.driver_features, VIRTIO_F_VERSION_1)
    }

    fn activate(&mut self) -> Result<(), ActivateError> {
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, (config, kick)) in (0u16..).zip(self.queues.iter().zip(&self.kicks)) {
            if config.ready {
                let queue = config
                    .build(&self.memory, self.driver_features)
                    .map_err(|source| ActivateError::Queue { index, source })?;
                let kick = kick.try_clone().map_err(|source| ActivateError::EventFd { source })?;
                queues.push(ActiveQueue { index, queue, kick });
            }
        }
        let broken = BrokenFlag::new({
            let interrupt = self.interrupt.clone();
            move || interrupt.config()
        });
        self.broken = Some(broken.clone());
        self.device.activate(Activation {
            memory: self.memory.clone(),
            queues,
            interrupt: self.interrupt.clone(),
            features: self.driver_features,
            broken,
        })
    }

    /// Stops the device and forgets everything that the driver has set up.
    pub fn reset(&mut self) {
        self.device.reset();
        self.status.grant(Step::Reset);
        self.driver_features = 0;
        self.broken = None;
        self.failed_activation = None;
        for queue in &mut self.queues {
            *queue = QueueConfig::new(queue.max_size);
        }
    }
}
