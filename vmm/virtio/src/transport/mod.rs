//! Ways by which a driver reaches a device.

pub mod mmio;
