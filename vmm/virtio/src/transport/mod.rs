//! Ways by which a driver reaches a device.

pub mod mmio;
pub mod vhost_user;

#[cfg(test)]
mod test_device;
