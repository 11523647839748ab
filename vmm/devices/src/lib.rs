//! vmm/devices
