//! The virtual machine as KVM has it: interrupt controllers, memory slots, device wiring.

use std::io;

use dewar_virtio::GuestMemory;
use dewar_virtio::transport::mmio::{MmioTransport, QUEUE_NOTIFY};
use kvm_bindings::{
    KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VmFd};
use thiserror::Error;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::layout::{KVM_IDENTITY_MAP, KVM_TSS, Slot};

#[derive(Debug, Error)]
pub enum VmError {
    #[error(
        "This machine has no /dev/kvm: enable virtualization in the firmware, load the kvm_intel or kvm_amd module, \
             or use the QEMU engine"
    )]
    NoKvm,
    #[error(
        "No permission to use /dev/kvm: add the user to the group that owns it (usually kvm), or use the QEMU engine"
    )]
    NoPermission,
    #[error("Could not open /dev/kvm")]
    Open {
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("/dev/kvm speaks API version {actual}, and version {KVM_API_VERSION} is needed: use a newer kernel")]
    ApiVersion { actual: i32 },
    #[error("KVM could not {action}")]
    Kvm {
        action: &'static str,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("Could not read where guest memory is mapped")]
    Memory {
        #[source]
        source: io::Error,
    },
}

/// A failure of KVM to do `action`.
pub fn failed(action: &'static str) -> impl Fn(kvm_ioctls::Error) -> VmError {
    move |source| VmError::Kvm { action, source }
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// When it is not there, not permitted, or too old.
pub fn open() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|source| match source.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::NoPermission,
        _ => VmError::Open { source },
    })?;
    match kvm.get_api_version() {
        version if version == KVM_API_VERSION as i32 => Ok(kvm),
        actual => Err(VmError::ApiVersion { actual }),
    }
}

/// Creates a VM with the interrupt controllers of a PC, all in the kernel, and a timer where the guest needs one.
///
/// A kernel that knows the rate of the TSC, by CPUID and kvmclock, and whose APIC timer takes deadlines of it never uses
/// the PIT. KVM makes a thread for it, and the VM waits for that. `tsc_deadline`: the timer takes such deadlines.
pub fn create(kvm: &Kvm, tsc_deadline: bool) -> Result<VmFd, VmError> {
    let vm = kvm.create_vm().map_err(failed("create a virtual machine"))?;
    vm.set_identity_map_address(KVM_IDENTITY_MAP).map_err(failed("place its identity map"))?;
    vm.set_tss_address(KVM_TSS as usize).map_err(failed("place its task state segment"))?;
    vm.create_irq_chip().map_err(failed("create interrupt controllers"))?;
    if !tsc_deadline {
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(failed("create a timer"))?;
    }
    Ok(vm)
}

/// KVM's supported CPUID table.
pub fn cpuid(kvm: &Kvm) -> Result<kvm_bindings::CpuId, VmError> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(failed("tell the supported CPU features"))
}

/// Whether the APIC timer that KVM emulates has the deadline mode.
pub fn has_deadline_timer(kvm: &Kvm) -> bool {
    kvm.check_extension(Cap::TscDeadlineTimer)
}

/// Gives guest memory to the VM.
pub fn add_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), VmError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let host = region
            .get_host_address(vm_memory::MemoryRegionAddress(0))
            .map_err(|source| VmError::Memory { source: io::Error::other(source) })?;
        let entry = kvm_userspace_memory_region {
            slot,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: host as u64,
            flags: 0,
        };
        // SAFETY: the region is mapped for the life of the process and `memory_size` is its length.
        unsafe { vm.set_user_memory_region(entry) }.map_err(failed("take guest memory"))?;
    }
    Ok(())
}

/// Lets the kernel inject the device's interrupts and take the driver's kicks without a round trip through this process.
pub fn connect(vm: &VmFd, device: &MmioTransport, slot: Slot) -> Result<(), VmError> {
    vm.register_irqfd(device.interrupt_fd(), slot.irq).map_err(failed("connect a device's interrupt"))?;
    let notify = IoEventAddress::Mmio(slot.base + QUEUE_NOTIFY);
    for (index, kick) in (0u32..).zip(device.kicks()) {
        vm.register_ioevent(kick, &notify, index).map_err(failed("connect a device's queue"))?;
    }
    Ok(())
}

/// Connects an interrupt that is raised by writing to `event`.
pub fn connect_interrupt(vm: &VmFd, event: &EventFd, irq: u32) -> Result<(), VmError> {
    vm.register_irqfd(event, irq).map_err(failed("connect the serial port's interrupt"))
}
