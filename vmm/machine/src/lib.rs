//! vmm/machine
