//! A machine from its configuration to its end.
//!
//! Threads: one for each vCPU, one for each active device, and a short-lived one that sets up KVM while the caller's thread
//! loads the kernel: the one mostly waits and the other mostly works. Everything else happens in the thread that owns the
//! [`Machine`].

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use dewar_devices::serial::{InterruptLine, SERIAL_IRQ, SerialPort};
use dewar_virtio::GuestMemory;
use dewar_virtio::transport::mmio::MmioTransport;
use dewar_vmm_api::{MachineConfig, Metrics};
use kvm_bindings::CpuId;
use kvm_ioctls::VmFd;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::boot::{self, BootError, BootInfo};
use crate::bus::Bus;
use crate::cpuid::{self, CpuFacts};
use crate::devices::{self, Counters, DeviceError, Made};
use crate::ending::{Cause, Outcome};
use crate::gate::Gate;
use crate::kernel::{self, KernelError, LoadedKernel};
use crate::layout::{self, LayoutError, RamLayout, RamRange, Slot};
use crate::memory::{self, MemoryError};
use crate::serial_log::{SerialLog, SerialLogError};
use crate::vcpu::{self, Vcpu, VcpuError};
use crate::vm::{self, VmError};

#[derive(Debug, Error)]
pub enum MachineError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    SerialLog(#[from] SerialLogError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    #[error("Could not create an event descriptor")]
    EventFd {
        #[source]
        source: io::Error,
    },
    #[error("Could not start the thread that sets up KVM")]
    SetupThread {
        #[source]
        source: io::Error,
    },
    #[error("The thread that sets up KVM panicked")]
    SetupPanicked,
}

/// When each step of a start was finished.
#[derive(Debug)]
pub struct Phases {
    start: Instant,
    done: Vec<(String, u64)>,
}

impl Phases {
    /// Counts from now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), done: Vec::with_capacity(16) }
    }

    pub fn done(&mut self, phase: &str) {
        let since = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.done.push((phase.to_owned(), since));
    }
}

/// What the vCPU threads report their end to.
struct End {
    cause: Mutex<Option<Cause>>,
    event: EventFd,
}

impl End {
    /// The first cause counts.
    fn report(&self, cause: Cause) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(cause);
        // Fails only when the counter is full, and then the owner is about to wake anyway.
        drop(self.event.write(1));
    }
}

struct Line(Arc<EventFd>);

impl InterruptLine for Line {
    fn raise(&self) {
        drop(self.0.write(1));
    }
}

/// A machine that runs, is paused, or has come to its end but was not taken apart yet.
pub struct Machine {
    bus: Arc<Bus>,
    gate: Arc<Gate>,
    end: Arc<End>,
    threads: Vec<JoinHandle<()>>,
    serial: SerialLog,
    /// By window.
    counters: Vec<(String, Counters)>,
    phases: Phases,
    /// Closed last.
    _vm: VmFd,
}

/// Kernel and initrd in guest memory.
struct Loaded {
    kernel: LoadedKernel,
    initrd: Option<RamRange>,
}

fn load(config: &MachineConfig, memory: &GuestMemory, ram: RamRange) -> Result<Loaded, MachineError> {
    let kernel = kernel::load(&config.kernel, memory, ram)?;
    let initrd = config.initrd.as_deref().map(|path| boot::load_initrd(path, memory, ram, &kernel)).transpose()?;
    Ok(Loaded { kernel, initrd })
}

/// KVM's side of a machine of which nothing else is known yet.
struct Hardware {
    vm: VmFd,
    cpuid: CpuId,
    tsc_deadline: bool,
}

fn create_hardware() -> Result<Hardware, VmError> {
    let kvm = vm::open()?;
    let tsc_deadline = vm::has_deadline_timer(&kvm);
    let vm = vm::create(&kvm, tsc_deadline)?;
    let cpuid = vm::cpuid(&kvm)?;
    Ok(Hardware { vm, cpuid, tsc_deadline })
}

/// A VM in the making, in a thread of its own. Creating one mostly waits, so it is begun before anything else.
///
/// Dropped, it waits for the thread: a process that exits in the middle of creating a VM can be left hanging in the kernel.
pub struct EarlyVm(Option<JoinHandle<Result<Hardware, VmError>>>);

impl EarlyVm {
    /// # Errors
    /// When no thread can be started. Whatever goes wrong with KVM is told by [`Machine::start`].
    pub fn begin() -> Result<Self, MachineError> {
        let thread = std::thread::Builder::new().name("kvm-setup".into()).spawn(create_hardware);
        thread.map(|thread| Self(Some(thread))).map_err(|source| MachineError::SetupThread { source })
    }

    fn finish(mut self) -> Result<Hardware, MachineError> {
        let joined = self.0.take().and_then(|thread| thread.join().ok());
        Ok(joined.ok_or(MachineError::SetupPanicked)??)
    }
}

impl Drop for EarlyVm {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            drop(thread.join());
        }
    }
}

fn create_vcpus(hardware: &Hardware, count: u8) -> Result<Vec<Vcpu>, MachineError> {
    let vcpus = (0..count).map(|id| Vcpu::create(&hardware.vm, id)).collect::<Result<Vec<_>, _>>()?;
    let tsc_khz = vcpus.first().and_then(Vcpu::tsc_khz);
    let facts = CpuFacts { vcpus: count, tsc_khz, tsc_deadline: hardware.tsc_deadline };
    let table = cpuid::common(hardware.cpuid.as_slice(), facts);
    vcpus.iter().try_for_each(|vcpu| vcpu.configure(&table))?;
    Ok(vcpus)
}

impl Machine {
    /// Builds the machine around `early` and starts its vCPUs. `serial_stdout`: serial output goes to stdout too.
    ///
    /// # Errors
    /// When the configuration cannot be met or the host refuses something.
    pub fn start(
        config: &MachineConfig,
        early: EarlyVm,
        serial_stdout: bool,
        mut phases: Phases,
    ) -> Result<Self, MachineError> {
        let count = layout::check_vcpus(config.vcpus)?;
        let ram = RamLayout::new(config.memory_mib)?;
        let memory = Arc::new(memory::map(&ram, config.shared_memory)?);
        let (counters, transports): (Vec<_>, Vec<_>) = make_transports(config, &memory)?.into_iter().unzip();
        let slots = layout::slots(transports.len())?;
        let cmdline = boot::cmdline(&config.cmdline, &slots)?;
        phases.done("devices");
        let loaded = load(config, &memory, ram.low())?;
        phases.done("kernel-loaded");
        let irqs: Vec<u32> = [layout::TIMER_IRQ, SERIAL_IRQ].into_iter().chain(slots.iter().map(|s| s.irq)).collect();
        let Loaded { kernel, initrd } = loaded;
        let info = BootInfo { ram: &ram, kernel: &kernel, initrd, cmdline: &cmdline, vcpus: count, irqs: &irqs };
        boot::write(&memory, &info)?;
        phases.done("boot-data");

        let hardware = early.finish()?;
        phases.done("kvm-vm");
        let vcpus = create_vcpus(&hardware, count)?;
        let Hardware { vm, .. } = hardware;
        vm::add_memory(&vm, &memory)?;
        if let Some(boot_vcpu) = vcpus.first() {
            boot_vcpu.set_entry(kernel.entry)?;
        }
        phases.done("kvm-vcpus");
        let serial = SerialLog::create(&config.serial_log, serial_stdout)?;
        let bus = Arc::new(wire(&vm, transports, &slots, &serial)?);
        phases.done("wired");

        let mut machine = Self {
            bus,
            gate: Arc::new(Gate::new(vcpus.len())),
            end: Arc::new(End { cause: Mutex::new(None), event: event()? }),
            threads: Vec::with_capacity(vcpus.len()),
            serial,
            counters,
            phases,
            _vm: vm,
        };
        vcpu::install_kick_handler()?;
        for vcpu in vcpus {
            let end = Arc::clone(&machine.end);
            let report = move |cause| end.report(cause);
            machine.threads.push(vcpu.start(Arc::clone(&machine.bus), Arc::clone(&machine.gate), report)?);
        }
        machine.phases.done("started");
        Ok(machine)
    }

    /// Readable when the machine has come to its end by itself.
    #[must_use]
    pub fn end_event(&self) -> &EventFd {
        &self.end.event
    }

    /// Stops all vCPUs; returns when none runs.
    pub fn pause(&self) {
        self.gate.pause(|| vcpu::kick(&self.threads));
    }

    pub fn resume(&self) {
        self.gate.resume();
    }

    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let state = if self.gate.is_paused() { "paused" } else { "running" };
        let mut devices = vec![("bus".to_owned(), "unanswered".to_owned(), self.bus.unanswered())];
        for ((name, counters), transport) in self.counters.iter().zip(self.bus.devices()) {
            devices.push((name.clone(), "illegal-accesses".to_owned(), transport.illegal_accesses()));
            let own = counters.list().into_iter();
            devices.extend(own.map(|(counter, value)| (name.clone(), counter.to_owned(), value)));
        }
        Metrics { state: state.to_owned(), phases: self.phases.done.clone(), devices }
    }

    /// Takes the machine apart: vCPUs first, then devices. What ended it is what the guest did, or else `Stopped`.
    /// `announce` is called as soon as no guest code runs and the outcome is known. Also returns the console's end.
    #[must_use]
    pub fn finish(self, announce: impl FnOnce(&Outcome)) -> (Outcome, Vec<u8>) {
        self.gate.dismiss(|| vcpu::kick(&self.threads));
        for thread in self.threads {
            drop(thread.join());
        }
        self.serial.finish();
        let console = self.serial.kept();
        let cause = self.end.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = Outcome::new(&cause.unwrap_or(Cause::Stopped), &console);
        self.bus.devices().for_each(|mut transport| transport.reset());
        announce(&outcome);
        (outcome, console)
    }
}

fn event() -> Result<EventFd, MachineError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(|source| MachineError::EventFd { source })
}

/// A device's name and counters, and its transport.
type Wired = ((String, Counters), MmioTransport);

fn make_transports(config: &MachineConfig, memory: &Arc<GuestMemory>) -> Result<Vec<Wired>, MachineError> {
    let made = devices::make(config)?.into_iter();
    made.map(|Made { name, device, counters }| {
        let transport = MmioTransport::new(Arc::clone(memory), device);
        Ok(((name, counters), transport.map_err(|source| MachineError::EventFd { source })?))
    })
    .collect()
}

fn wire(vm: &VmFd, transports: Vec<MmioTransport>, slots: &[Slot], serial: &SerialLog) -> Result<Bus, MachineError> {
    for (transport, slot) in transports.iter().zip(slots) {
        vm::connect(vm, transport, *slot)?;
    }
    let line = Arc::new(event()?);
    vm::connect_interrupt(vm, &line, SERIAL_IRQ)?;
    Ok(Bus::new(SerialPort::new(Box::new(Line(line)), Box::new(serial.clone())), transports))
}
