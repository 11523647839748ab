//! The KVM machine. The only crate that knows KVM.
//!
//! * [`machine`]: builds a machine from its configuration, runs, pauses and ends it.
//! * [`layout`], [`memory`]: where things lie in the guest's address space, and the mapping behind it.
//! * [`kernel`], [`boot`], [`mptable`], [`registers`], [`cpuid`]: what the guest kernel finds at its first instruction.
//! * [`vm`], [`vcpu`], [`gate`]: KVM's objects and the threads in them.
//! * [`devices`], [`bus`], [`serial_log`]: what answers the guest's accesses.
//! * [`ending`]: why it ended.
//! * [`probe`]: whether `/dev/kvm` can run a kernel at all.
//!
//! A process holds one machine. x86-64 only.

mod boot;
mod bus;
mod cpuid;
mod devices;
mod ending;
mod gate;
mod kernel;
mod layout;
mod machine;
mod memory;
mod mptable;
pub mod probe;
mod registers;
mod serial_log;
mod vcpu;
mod vm;

pub use devices::{DeviceError, disk as open_disk, shared_fs as open_shared_fs};
pub use ending::{Cause, Outcome};
pub use machine::{EarlyVm, Machine, MachineError, Phases};
pub use serial_log::last_lines;
