//! Finds out whether `/dev/kvm` can run a kernel.
//!
//! Some clouds offer a KVM that runs ring 3 natively and emulates ring 0: `/dev/kvm` is there, and every kernel dies in
//! it. So a throw-away VM runs a few ring-0 instructions in long mode, among them those that such emulators give up on,
//! and a counted loop whose time tells hardware from an emulator.

use std::time::{Duration, Instant};

use dewar_virtio::GuestMemory;
use dewar_vmm_api::{ProbeVerdict, TenthNanos};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_dtable, kvm_regs, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use crate::kernel::Entry;
use crate::vm::{self, VmError};
use crate::{boot, registers};

const MEMORY: usize = 64 << 10;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const IDT: u64 = 0x4000;
const GDT: u64 = 0x5000;
const CODE: u64 = 0x6000;
const HANDLER: u64 = 0x6800;
const XSAVE_AREA: u64 = 0x7000;
const STACK_TOP: u64 = 0x9000;
const PRESENT_WRITABLE: u64 = 3;
const LARGE_PAGE: u64 = 0x80;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXSAVE: u64 = 1 << 18;
const XSAVE_BIT: u32 = 1 << 26;
const BREAKPOINT: u64 = 3;
/// Present 64-bit interrupt gate in the code segment.
const GATE: u64 = 0x8e00 << 32 | 0x10 << 16;

/// Instructions in a turn of the loop.
const PER_TURN: u32 = 2;
/// Turns of one measurement: short enough that an emulator takes less than a millisecond.
const TURNS: u32 = 500;
/// The best of so many counts: a busy host only ever makes a measurement longer.
const ROUNDS: usize = 8;
/// Hardware takes about a nanosecond for an instruction, a nested machine some tens, an emulator some hundreds. In tenths
/// of a nanosecond.
const REAL_BELOW: u64 = 500;
/// Below this a measurement may be mostly the cost of entering a nested VM, and a longer loop decides.
const UNCLEAR_BELOW: u64 = 3000;
const LONG_TURNS: u32 = 20_000;
const LONG_ROUNDS: usize = 3;

const IRETQ: [u8; 2] = [0x48, 0xcf];
const XRSTOR_RSI: [u8; 3] = [0x0f, 0xae, 0x2e];
const INT3: u8 = 0xcc;

/// The steps that the guest reports by writing to these ports.
const PORT_START: u8 = 0x10;
const PORT_XRSTOR: u8 = 0x11;
const PORT_INT3: u8 = 0x12;
const PORT_LOOP: u8 = 0x13;
const PORT_LONG: u8 = 0x14;

/// Runs the probe. Takes about a millisecond.
#[must_use]
pub fn probe() -> ProbeVerdict {
    match vm::open() {
        Ok(kvm) => run(&kvm).unwrap_or_else(|error| ProbeVerdict::Failed { detail: chain(&error) }),
        Err(error @ VmError::NoKvm) => ProbeVerdict::Missing { detail: error.to_string() },
        Err(error @ VmError::NoPermission) => ProbeVerdict::NoPermission { detail: error.to_string() },
        Err(error) => ProbeVerdict::Failed { detail: chain(&error) },
    }
}

fn chain(error: &VmError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn count_loop(turns: u32, port: u8) -> Vec<u8> {
    let mut code = vec![0xb9]; // mov ecx, turns
    code.extend(turns.to_le_bytes());
    code.extend([0xff, 0xc9, 0x75, 0xfc]); // dec ecx; jnz
    code.extend(report(port));
    code
}

fn report(port: u8) -> [u8; 2] {
    [0xe6, port] // out port, al
}

fn program(xsave: bool) -> Vec<u8> {
    let mut code = count_loop(TURNS, PORT_START);
    if xsave {
        code.extend(XRSTOR_RSI);
    }
    code.extend(report(PORT_XRSTOR));
    code.push(INT3);
    code.extend(report(PORT_INT3));
    code.extend(count_loop(TURNS, PORT_LOOP).repeat(ROUNDS));
    code.extend(count_loop(LONG_TURNS, PORT_LONG).repeat(LONG_ROUNDS));
    code
}

/// What was measured before the guest came to an end or did what it should not. Figures in tenths of a nanosecond for an
/// instruction.
#[derive(Debug, Default)]
struct Measured {
    best: Option<u64>,
    failure: Option<String>,
}

impl Measured {
    fn count(&mut self, time: Duration, turns: u32) {
        let tenths = time.as_nanos().saturating_mul(10) / u128::from(turns * PER_TURN);
        let figure = u64::try_from(tenths).unwrap_or(u64::MAX);
        self.best = Some(self.best.map_or(figure, |best| best.min(figure)));
    }

    fn below(&self, limit: u64) -> bool {
        self.best.is_some_and(|best| best < limit)
    }
}

fn judge(measured: Measured) -> ProbeVerdict {
    let real = measured.below(REAL_BELOW);
    match (measured.best.map(TenthNanos), measured.failure) {
        (Some(ns_per_instruction), None) if real => ProbeVerdict::Real { ns_per_instruction },
        (ns_per_instruction, failure) => ProbeVerdict::Emulated {
            ns_per_instruction,
            detail: failure.unwrap_or_else(|| "kernel code is emulated one instruction at a time".to_owned()),
        },
    }
}

fn run(kvm: &Kvm) -> Result<ProbeVerdict, VmError> {
    let vm = kvm.create_vm().map_err(vm::failed("create a virtual machine"))?;
    let cpuid =
        kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(vm::failed("tell the supported CPU features"))?;
    let xsave = cpuid.as_slice().iter().any(|e| e.function == 1 && e.ecx & XSAVE_BIT != 0);
    let memory = fill_memory(xsave).map_err(|source| VmError::Memory { source: std::io::Error::other(source) })?;
    let host = memory
        .get_host_address(GuestAddress(0))
        .map_err(|source| VmError::Memory { source: std::io::Error::other(source) })?;
    let slot =
        kvm_userspace_memory_region { memory_size: MEMORY as u64, userspace_addr: host as u64, ..Default::default() };
    // SAFETY: `memory` is mapped with this length and it is not unmapped before `vm`'s last use below.
    unsafe { vm.set_user_memory_region(slot) }.map_err(vm::failed("take guest memory"))?;
    let mut vcpu = vm.create_vcpu(0).map_err(vm::failed("create a vCPU"))?;
    set_up(&vcpu, &cpuid, xsave)?;
    let measured = measure(&mut vcpu);
    // Taking a VM apart waits in the kernel for some tens of milliseconds: it happens at this process's end, when whoever
    // asked has the answer. The memory stays with it.
    std::mem::forget((vcpu, vm, memory));
    Ok(judge(measured))
}

fn fill_memory(xsave: bool) -> Result<GuestMemory, Box<dyn std::error::Error + Send + Sync>> {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)])?;
    memory.write_obj(PDPT | PRESENT_WRITABLE, GuestAddress(PML4))?;
    memory.write_obj(DIRECTORY | PRESENT_WRITABLE, GuestAddress(PDPT))?;
    memory.write_obj(PRESENT_WRITABLE | LARGE_PAGE, GuestAddress(DIRECTORY))?;
    memory.write_obj(GATE | HANDLER, GuestAddress(IDT + BREAKPOINT * 16))?;
    for (at, entry) in (0u64..).zip(boot::GDT) {
        memory.write_obj(entry, GuestAddress(GDT + at * 8))?;
    }
    memory.write_slice(&program(xsave), GuestAddress(CODE))?;
    memory.write_slice(&IRETQ, GuestAddress(HANDLER))?;
    Ok(memory)
}

fn set_up(vcpu: &VcpuFd, cpuid: &CpuId, xsave: bool) -> Result<(), VmError> {
    vcpu.set_cpuid2(cpuid).map_err(vm::failed("set CPU features"))?;
    let mut sregs: kvm_sregs = vcpu.get_sregs().map_err(vm::failed("read registers"))?;
    registers::system(&mut sregs, Entry::Long { address: CODE });
    sregs.cr3 = PML4;
    sregs.cr4 |= CR4_OSFXSR | if xsave { CR4_OSXSAVE } else { 0 };
    sregs.gdt.base = GDT;
    sregs.idt = kvm_dtable { base: IDT, limit: 0xfff, ..Default::default() };
    vcpu.set_sregs(&sregs).map_err(vm::failed("set registers"))?;
    // XRSTOR takes its mask from edx:eax: the x87 state.
    let regs = kvm_regs { rip: CODE, rsp: STACK_TOP, rsi: XSAVE_AREA, rax: 1, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).map_err(vm::failed("set registers"))
}

/// Runs to the next report, which must be the one on `port`.
fn step(vcpu: &mut VcpuFd, port: u8, doing: &str) -> Result<Duration, String> {
    let start = Instant::now();
    match vcpu.run() {
        Ok(VcpuExit::IoOut(actual, _)) if actual == u16::from(port) => Ok(start.elapsed()),
        Ok(VcpuExit::InternalError) => Err(format!("KVM cannot emulate {doing}")),
        Ok(exit) => Err(format!("{doing} ended in the exit {exit:?}")),
        Err(error) => Err(format!("{doing} failed: {error}")),
    }
}

fn measure(vcpu: &mut VcpuFd) -> Measured {
    let mut measured = Measured::default();
    measured.failure = measure_until_failure(vcpu, &mut measured).err();
    measured
}

fn measure_until_failure(vcpu: &mut VcpuFd, measured: &mut Measured) -> Result<(), String> {
    // Before the instructions that may fail, so that an emulator gets its figure too.
    measured.count(step(vcpu, PORT_START, "a loop in ring 0")?, TURNS);
    step(vcpu, PORT_XRSTOR, "XRSTOR in ring 0")?;
    step(vcpu, PORT_INT3, "INT3 in ring 0")?;
    for _ in 0..ROUNDS {
        measured.count(step(vcpu, PORT_LOOP, "a loop in ring 0")?, TURNS);
    }
    if measured.below(REAL_BELOW) || !measured.below(UNCLEAR_BELOW) {
        return Ok(());
    }
    for _ in 0..LONG_ROUNDS {
        measured.count(step(vcpu, PORT_LONG, "a loop in ring 0")?, LONG_TURNS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(each: &[(u64, u32)]) -> Measured {
        let mut measured = Measured::default();
        for (nanos, turns) in each {
            measured.count(Duration::from_nanos(nanos * u64::from(turns * PER_TURN)), *turns);
        }
        measured
    }

    #[test]
    fn the_best_of_all_rounds_counts() {
        let verdict = judge(measured(&[(400, TURNS), (120, TURNS), (3, LONG_TURNS)]));
        assert_eq!(verdict, ProbeVerdict::Real { ns_per_instruction: TenthNanos(30) });
    }

    #[test]
    fn slow_is_emulated() {
        for slow in [750, 50] {
            let verdict = judge(measured(&[(slow, TURNS), (slow + 1, TURNS)]));
            assert!(
                matches!(verdict, ProbeVerdict::Emulated { ns_per_instruction: Some(TenthNanos(n)), .. } if n == slow * 10),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn an_instruction_that_fails_is_emulation_however_fast() {
        let failure = Some("KVM cannot emulate XRSTOR in ring 0".to_owned());
        let verdict = judge(Measured { failure, ..measured(&[(1, TURNS)]) });
        assert!(matches!(&verdict, ProbeVerdict::Emulated { detail, .. } if detail.contains("XRSTOR")), "{verdict:?}");
    }

    #[test]
    fn the_program_fits_before_its_handler() {
        assert!(program(true).len() as u64 <= HANDLER - CODE);
        assert_eq!(program(true).len(), program(false).len() + XRSTOR_RSI.len());
    }
}
