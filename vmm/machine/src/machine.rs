//! A machine from its configuration to its end.
//!
//! Threads: one for each vCPU, one for each active device, and a short-lived one that loads the kernel while the caller's
//! thread sets up KVM: creating a VM mostly waits, and loading a kernel mostly works. Everything else happens in the thread
//! that owns the [`Machine`].

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use dewar_devices::serial::{InterruptLine, SERIAL_IRQ, SerialPort};
use dewar_virtio::GuestMemory;
use dewar_virtio::transport::mmio::MmioTransport;
use dewar_vmm_api::{MachineConfig, Metrics};
use kvm_ioctls::{Kvm, VmFd};
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
    #[error("The thread that loads the kernel {} could not be started or has panicked", kernel.display())]
    Loader { kernel: PathBuf },
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

/// What the loader thread brings back.
struct Loaded {
    kernel: LoadedKernel,
    initrd: Option<RamRange>,
}

fn load(config: &MachineConfig, memory: &GuestMemory, ram: RamRange) -> Result<Loaded, MachineError> {
    let kernel = kernel::load(&config.kernel, memory, ram)?;
    let initrd = config.initrd.as_deref().map(|path| boot::load_initrd(path, memory, ram, &kernel)).transpose()?;
    Ok(Loaded { kernel, initrd })
}

/// KVM's side of the machine while it is being built.
struct Hardware {
    vm: VmFd,
    vcpus: Vec<Vcpu>,
}

fn create_hardware(kvm: &Kvm, vcpus: u8, phases: &mut Phases) -> Result<Hardware, MachineError> {
    let vm = vm::create(kvm)?;
    phases.done("kvm-vm");
    let (supported, tsc_deadline) = vm::cpuid(kvm)?;
    let mut made = Vec::with_capacity(usize::from(vcpus));
    let mut table = Vec::new();
    for id in 0..vcpus {
        let vcpu = Vcpu::create(&vm, id)?;
        if id == 0 {
            let facts = CpuFacts { vcpus, tsc_khz: vcpu.tsc_khz(), tsc_deadline };
            table = cpuid::common(supported.as_slice(), facts);
        }
        vcpu.configure(&table)?;
        made.push(vcpu);
    }
    phases.done("kvm-vcpus");
    Ok(Hardware { vm, vcpus: made })
}

impl Machine {
    /// Builds the machine and starts its vCPUs. `serial_stdout`: serial output goes to stdout too.
    ///
    /// # Errors
    /// When the configuration cannot be met or the host refuses something.
    pub fn start(config: &MachineConfig, serial_stdout: bool, mut phases: Phases) -> Result<Self, MachineError> {
        let vcpus = layout::check_vcpus(config.vcpus)?;
        let ram = RamLayout::new(config.memory_mib)?;
        let kvm = vm::open()?;
        let memory = Arc::new(memory::map(&ram, config.shared_memory)?);
        phases.done("memory");

        let (loaded, hardware, transports) = std::thread::scope(|scope| {
            let loader = std::thread::Builder::new()
                .name("loader".into())
                .spawn_scoped(scope, || load(config, &memory, ram.low()))
                .map_err(|_| MachineError::Loader { kernel: config.kernel.clone() })?;
            let hardware = create_hardware(&kvm, vcpus, &mut phases);
            let transports = make_transports(config, &memory);
            phases.done("devices");
            let loaded = loader.join().map_err(|_| MachineError::Loader { kernel: config.kernel.clone() })?;
            phases.done("kernel-loaded");
            // What is wrong with the kernel is the likelier mistake: it is told first.
            Ok::<_, MachineError>((loaded?, hardware?, transports?))
        })?;
        let (counters, transports): (Vec<_>, Vec<_>) = transports.into_iter().unzip();
        let slots = layout::slots(transports.len())?;
        let cmdline = boot::cmdline(&config.cmdline, &slots)?;
        let info =
            BootInfo { ram: &ram, kernel: &loaded.kernel, initrd: loaded.initrd, cmdline: &cmdline, vcpus };
        boot::write(&memory, &info)?;

        let Hardware { vm, vcpus } = hardware;
        vm::add_memory(&vm, &memory)?;
        if let Some(boot_vcpu) = vcpus.first() {
            boot_vcpu.set_entry(loaded.kernel.entry)?;
        }
        phases.done("boot-data");
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

fn make_transports(
    config: &MachineConfig,
    memory: &Arc<GuestMemory>,
) -> Result<Vec<Wired>, MachineError> {
    let made = devices::make(config)?.into_iter();
    made.map(|Made { name, device, counters }| {
        let transport = MmioTransport::new(Arc::clone(memory), device);
        Ok(((name, counters), transport.map_err(|source| MachineError::EventFd { source })?))
    })
    .collect()
}

fn wire(
    vm: &VmFd,
    transports: Vec<MmioTransport>,
    slots: &[Slot],
    serial: &SerialLog,
) -> Result<Bus, MachineError> {
    for (transport, slot) in transports.iter().zip(slots) {
        vm::connect(vm, transport, *slot)?;
    }
    let line = Arc::new(event()?);
    vm::connect_interrupt(vm, &line, SERIAL_IRQ)?;
    Ok(Bus::new(SerialPort::new(Box::new(Line(line)), Box::new(serial.clone())), transports))
}
