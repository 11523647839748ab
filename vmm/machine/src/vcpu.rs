//! One virtual processor: its set-up and the loop of the thread that runs it.
//!
//! A thread in `KVM_RUN` is interrupted by a signal whose handler sets the thread's own `immediate_exit`: so a kick works
//! whether it comes before, during or after the system call. The thread then asks the [`Gate`].

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{CpuId, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN, Msrs, kvm_cpuid_entry2, kvm_run};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use thiserror::Error;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::ending::Cause;
use crate::gate::Gate;
use crate::kernel::Entry;
use crate::{cpuid, registers};

#[derive(Debug, Error)]
pub enum VcpuError {
    #[error("Could not {action} vCPU {id}")]
    Kvm {
        action: &'static str,
        id: u8,
        #[source]
        source: kvm_ioctls::Error,
    },
    #[error("KVM refused {refused} of the model-specific registers of vCPU {id}")]
    Msrs { id: u8, refused: usize },
    #[error("The CPUID table has more entries than KVM takes")]
    CpuidTooLarge,
    #[error("Could not install the handler that interrupts vCPUs")]
    Signal {
        #[source]
        source: vmm_sys_util::errno::Error,
    },
    #[error("Could not start the thread of vCPU {id}")]
    Thread {
        id: u8,
        #[source]
        source: io::Error,
    },
}

thread_local! {
    /// The `kvm_run` page of the vCPU that this thread runs; null when it runs none.
    static RUNNING: Cell<*mut kvm_run> = const { Cell::new(ptr::null_mut()) };
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let run = RUNNING.get();
    if !run.is_null() {
        // SAFETY: `run` points to a mapped `kvm_run` page for as long as it stands in `RUNNING`.
        let field = unsafe { &raw mut (*run).immediate_exit };
        // SAFETY: `field` is a valid byte; only this thread and KVM touch it.
        unsafe { field.write_volatile(1) };
    }
}

/// Installs the signal handler for [`kick`], once for the process.
pub fn install_kick_handler() -> Result<(), VcpuError> {
    register_signal_handler(SIGRTMIN(), on_kick).map_err(|source| VcpuError::Signal { source })
}

/// Interrupts vCPU threads. One that has ended already needs none.
pub fn kick(threads: &[JoinHandle<()>]) {
    for thread in threads.iter().filter(|thread| !thread.is_finished()) {
        let _ = thread.kill(SIGRTMIN());
    }
}

/// A vCPU before it runs.
pub struct Vcpu {
    fd: VcpuFd,
    id: u8,
}

impl Vcpu {
    pub fn create(vm: &VmFd, id: u8) -> Result<Self, VcpuError> {
        let fd = vm.create_vcpu(u64::from(id)).map_err(|source| VcpuError::Kvm { action: "create", id, source })?;
        Ok(Self { fd, id })
    }

    /// `None`: the host has no stable time stamp counter.
    pub fn tsc_khz(&self) -> Option<u32> {
        self.fd.get_tsc_khz().ok().filter(|khz| *khz > 0)
    }

    /// Sets CPUID, from the table common to all vCPUs, and the model-specific registers.
    pub fn configure(&self, table: &[kvm_cpuid_entry2]) -> Result<(), VcpuError> {
        let id = self.id;
        let failed = |action| move |source| VcpuError::Kvm { action, id, source };
        let mut own = table.to_vec();
        cpuid::personalize(&mut own, id);
        let own = CpuId::from_entries(&own).map_err(|_| VcpuError::CpuidTooLarge)?;
        self.fd.set_cpuid2(&own).map_err(failed("set the CPUID of"))?;
        let wanted = registers::msrs();
        let msrs = Msrs::from_entries(&wanted).map_err(|_| VcpuError::Msrs { id, refused: wanted.len() })?;
        let set = self.fd.set_msrs(&msrs).map_err(failed("set the model-specific registers of"))?;
        if set < wanted.len() {
            return Err(VcpuError::Msrs { id, refused: wanted.len() - set });
        }
        Ok(())
    }

    /// Brings the boot processor to the kernel's entry point. The others wait for it to wake them.
    pub fn set_entry(&self, entry: Entry) -> Result<(), VcpuError> {
        let failed = |action| move |source| VcpuError::Kvm { action, id: self.id, source };
        let mut sregs = self.fd.get_sregs().map_err(failed("read the system registers of"))?;
        registers::system(&mut sregs, entry);
        self.fd.set_sregs(&sregs).map_err(failed("set the system registers of"))?;
        self.fd.set_regs(&registers::general(entry)).map_err(failed("set the registers of"))
    }

    /// Starts the thread. `on_end` is called at most once, with what ended the machine.
    pub fn start(
        self,
        bus: Arc<Bus>,
        gate: Arc<Gate>,
        on_end: impl Fn(Cause) + Send + 'static,
    ) -> Result<JoinHandle<()>, VcpuError> {
        let id = self.id;
        std::thread::Builder::new()
            .name(format!("vcpu{id}"))
            .spawn(move || self.run(&bus, &gate, on_end))
            .map_err(|source| VcpuError::Thread { id, source })
    }

    fn run(mut self, bus: &Bus, gate: &Gate, on_end: impl Fn(Cause)) {
        RUNNING.set(self.fd.get_kvm_run());
        let cause = if gate.pass() { self.until_end(bus, gate) } else { None };
        RUNNING.set(ptr::null_mut());
        if let Some(cause) = cause {
            gate.leave();
            on_end(cause);
        }
    }

    /// `None`: sent home by the gate.
    fn until_end(&mut self, bus: &Bus, gate: &Gate) -> Option<Cause> {
        loop {
            let cause = match self.fd.run() {
                Ok(VcpuExit::IoOut(port, data)) => bus.port_out(port, data),
                Ok(VcpuExit::IoIn(port, data)) => {
                    bus.port_in(port, data);
                    None
                }
                Ok(VcpuExit::MmioWrite(address, data)) => {
                    bus.mmio_write(address, data);
                    None
                }
                Ok(VcpuExit::MmioRead(address, data)) => {
                    bus.mmio_read(address, data);
                    None
                }
                Ok(VcpuExit::Intr) => None,
                Ok(VcpuExit::InternalError) => Some(self.internal_error()),
                Ok(exit) => Some(cause_of(exit)),
                Err(error) if error.errno() == libc::EAGAIN => None,
                Err(error) if error.errno() == libc::EINTR => {
                    // Before the gate: a kick that comes from now on is seen at the next entry.
                    self.fd.set_kvm_immediate_exit(0);
                    let paused = gate.is_paused();
                    if !gate.pass() {
                        return None;
                    }
                    if paused {
                        // Tells the guest's watchdog that it was away. Without kvmclock there is nothing to tell.
                        let _ = self.fd.kvmclock_ctrl();
                    }
                    None
                }
                Err(error) => Some(Cause::RunFailed { errno: error.errno() }),
            };
            if cause.is_some() {
                return cause;
            }
        }
    }

    fn internal_error(&mut self) -> Cause {
        let rip = self.fd.get_regs().ok().map(|regs| regs.rip);
        // SAFETY: the exit reason was KVM_EXIT_INTERNAL_ERROR, which fills this member of the union.
        let internal = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal };
        let count = usize::try_from(internal.ndata).unwrap_or(usize::MAX).min(internal.data.len());
        Cause::Internal { suberror: internal.suberror, data: internal.data[..count].to_vec(), rip }
    }
}

/// What an exit that is no access means.
fn cause_of(exit: VcpuExit) -> Cause {
    match exit {
        VcpuExit::Shutdown => Cause::TripleFault,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => Cause::PowerOffPort,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Cause::ResetLine,
        VcpuExit::FailEntry(reason, cpu) => Cause::FailEntry { reason, cpu },
        other => Cause::Unexpected { exit: format!("{other:?}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_apart() {
        assert_eq!(cause_of(VcpuExit::Shutdown), Cause::TripleFault);
        assert_eq!(cause_of(VcpuExit::FailEntry(7, 1)), Cause::FailEntry { reason: 7, cpu: 1 });
        assert_eq!(cause_of(VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, &[])), Cause::ResetLine);
        assert_eq!(cause_of(VcpuExit::Hlt), Cause::Unexpected { exit: "Hlt".into() });
    }

    #[test]
    fn kicking_a_thread_without_a_vcpu_is_harmless() {
        install_kick_handler().unwrap();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv().unwrap());
        kick(std::slice::from_ref(&thread));
        go.send(()).unwrap();
        thread.join().unwrap();
    }
}
