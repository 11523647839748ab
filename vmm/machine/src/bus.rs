//! Routes the guest's port and memory-mapped accesses to what answers them.
//!
//! Called from vCPU threads; one lock for each device. What nobody answers reads as ones and is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dewar_devices::serial::{SERIAL_PORT, SERIAL_PORTS, SerialPort};
use dewar_virtio::transport::mmio::MmioTransport;
use dewar_vmm_api::{EXIT_IO_PORT, EXIT_POWER_OFF};

use crate::ending::Cause;
use crate::layout::{MMIO_BASE, MMIO_WINDOW};

const SERIAL_LAST: u16 = SERIAL_PORT + SERIAL_PORTS - 1;
const KEYBOARD_COMMAND: u16 = 0x64;
/// Pulses the processor's reset line.
const KEYBOARD_RESET: u8 = 0xfe;
/// Input and output buffer empty.
const KEYBOARD_IDLE: u8 = 0;

/// Everything that the guest reaches by address.
pub struct Bus {
    serial: Mutex<SerialPort>,
    /// By window.
    devices: Vec<Mutex<MmioTransport>>,
    unanswered: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    pub fn new(serial: SerialPort, devices: Vec<MmioTransport>) -> Self {
        let devices = devices.into_iter().map(Mutex::new).collect();
        Self { serial: Mutex::new(serial), devices, unanswered: AtomicU64::new(0) }
    }

    /// The devices, by window.
    pub fn devices(&self) -> impl Iterator<Item = MutexGuard<'_, MmioTransport>> {
        self.devices.iter().map(lock)
    }

    /// Accesses that nobody answered.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    fn note_unanswered(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub fn port_in(&self, port: u16, data: &mut [u8]) {
        match port {
            SERIAL_PORT..=SERIAL_LAST => {
                let mut serial = lock(&self.serial);
                // A string instruction is one exit with many bytes.
                data.chunks_mut(1).for_each(|byte| serial.read(port - SERIAL_PORT, byte));
            }
            KEYBOARD_COMMAND => data.fill(KEYBOARD_IDLE),
            _ => {
                self.note_unanswered();
                data.fill(0xff);
            }
        }
    }

    /// What the write ends, if it does.
    pub fn port_out(&self, port: u16, data: &[u8]) -> Option<Cause> {
        match (port, data) {
            (SERIAL_PORT..=SERIAL_LAST, _) => {
                let mut serial = lock(&self.serial);
                data.chunks(1).for_each(|byte| serial.write(port - SERIAL_PORT, byte));
            }
            (KEYBOARD_COMMAND, [KEYBOARD_RESET, ..]) => return Some(Cause::ResetLine),
            (EXIT_IO_PORT, [EXIT_POWER_OFF, ..]) => return Some(Cause::PowerOffPort),
            _ => self.note_unanswered(),
        }
        None
    }

    fn device(&self, address: u64) -> Option<(&Mutex<MmioTransport>, u64)> {
        let offset = address.checked_sub(MMIO_BASE)?;
        let index = usize::try_from(offset / MMIO_WINDOW).ok()?;
        Some((self.devices.get(index)?, offset % MMIO_WINDOW))
    }

    pub fn mmio_read(&self, address: u64, data: &mut [u8]) {
        match self.device(address) {
            Some((device, offset)) => lock(device).read(offset, data),
            None => {
                self.note_unanswered();
                data.fill(0xff);
            }
        }
    }

    pub fn mmio_write(&self, address: u64, data: &[u8]) {
        match self.device(address) {
            Some((device, offset)) => lock(device).write(offset, data),
            None => self.note_unanswered(),
        }
    }
}
