//! Device access rules (OCI `linux.resources.devices`) as a BPF program of type cgroup/device.
//!
//! A request names a kind, a number and one or more of read, write and mknod. The rules are walked from the last to the
//! first, and each decides those of the requested kinds of access that it names and no later one has decided: the last
//! matching rule wins, bit by bit, so that neither "deny w" is evaded by opening for both, nor "allow r" and "allow w"
//! fail to add up. What no rule decides is denied. Behind the request's own rules come those that runc adds: mknod of
//! anything, and the use of the devices that every container has.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use rustix::io::Errno;

use super::CgroupError;

/// Most rules of a container.
const MAX_RULES: usize = 10_000;

// linux/bpf.h: access and kind in bpf_cgroup_dev_ctx.access_type.
const BLOCK: u8 = 1;
const CHAR: u8 = 2;
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// One rule; `None` matches all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u8>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const fn allowed(kind: u8, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

const DEFAULTS: [Rule; 10] = [
    allowed(CHAR, None, None, MKNOD),
    allowed(BLOCK, None, None, MKNOD),
    // null, zero, full, random, urandom, tty, ptmx and the terminals of devpts.
    allowed(CHAR, Some(1), Some(3), ALL),
    allowed(CHAR, Some(1), Some(5), ALL),
    allowed(CHAR, Some(1), Some(7), ALL),
    allowed(CHAR, Some(1), Some(8), ALL),
    allowed(CHAR, Some(1), Some(9), ALL),
    allowed(CHAR, Some(5), Some(0), ALL),
    allowed(CHAR, Some(5), Some(2), ALL),
    allowed(CHAR, Some(136), None, ALL),
];

fn parse(rule: &LinuxDeviceCgroup) -> Result<Rule, CgroupError> {
    let invalid =
        |value: String, reason| CgroupError::Invalid { option: "A rule in linux.resources.devices", value, reason };
    let kind = match rule.typ().unwrap_or_default() {
        LinuxDeviceType::A => None,
        LinuxDeviceType::B => Some(BLOCK),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(CHAR),
        LinuxDeviceType::P => return Err(invalid("p".to_owned(), "a FIFO is no device")),
    };
    let number = |value: Option<i64>| match value {
        None | Some(-1) => Ok(None),
        Some(value) => {
            u32::try_from(value).map(Some).map_err(|_| invalid(value.to_string(), "the number is out of range"))
        }
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            other => return Err(invalid(other.to_string(), "access consists of r, w and m")),
        };
    }
    let access = if access == 0 { ALL } else { access };
    Ok(Rule { allow: rule.allow(), kind, major: number(rule.major())?, minor: number(rule.minor())?, access })
}

/// One eBPF instruction as the kernel reads it: opcode, registers (source in the high half), offset, immediate.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Opcodes (kernel: Documentation/bpf/standardization/instruction-set.rst).
const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND32_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT32_IMMEDIATE: u8 = 0x74;
const JUMP32_IF_EQUAL: u8 = 0x16;
const JUMP32_IF_NOT_EQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
/// What is requested and not decided yet.
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

const fn instruction(code: u8, destination: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset, immediate }
}

const fn from_register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: 0 }
}

/// Compiles the rules, in the order of the specification.
pub(super) fn compile(rules: &[LinuxDeviceCgroup]) -> Result<Vec<Instruction>, CgroupError> {
    if rules.len() > MAX_RULES {
        return Err(CgroupError::Invalid {
            option: "The number of rules in linux.resources.devices",
            value: rules.len().to_string(),
            reason: "it is above 10000",
        });
    }
    let rules = rules.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut program = vec![
        from_register(LOAD_WORD, KIND, CONTEXT, 0),
        from_register(MOVE_REGISTER, WANTED, KIND, 0),
        instruction(AND32_IMMEDIATE, KIND, 0, 0xffff),
        instruction(SHIFT_RIGHT32_IMMEDIATE, WANTED, 0, 16),
        from_register(LOAD_WORD, MAJOR, CONTEXT, 4),
        from_register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for rule in DEFAULTS.iter().rev().chain(rules.iter().rev()) {
        emit(rule, &mut program);
        if (rule.kind, rule.major, rule.minor, rule.access) == (None, None, None, ALL) {
            // The verifier does not take instructions that nothing reaches.
            program.extend(verdict(rule.allow));
            return Ok(program);
        }
    }
    program.extend(verdict(false));
    Ok(program)
}

const fn verdict(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, RESULT, 0, allow as i32), instruction(EXIT, 0, 0, 0)]
}

fn emit(rule: &Rule, program: &mut Vec<Instruction>) {
    let decide: &[Instruction] = if rule.allow {
        &[
            instruction(AND32_IMMEDIATE, WANTED, 0, !i32::from(rule.access)),
            instruction(JUMP32_IF_NOT_EQUAL, WANTED, 2, 0),
            verdict(true)[0],
            verdict(true)[1],
        ]
    } else {
        &[
            from_register(MOVE_REGISTER, SCRATCH, WANTED, 0),
            instruction(AND32_IMMEDIATE, SCRATCH, 0, i32::from(rule.access)),
            instruction(JUMP32_IF_EQUAL, SCRATCH, 2, 0),
            verdict(false)[0],
            verdict(false)[1],
        ]
    };
    let conditions = [(KIND, rule.kind.map(u32::from)), (MAJOR, rule.major), (MINOR, rule.minor)];
    let wanted: Vec<(u8, u32)> =
        conditions.iter().filter_map(|(register, value)| value.map(|v| (*register, v))).collect();
    for (index, (register, value)) in wanted.iter().enumerate() {
        let skipped = wanted.len() - index - 1 + decide.len();
        program.push(instruction(JUMP32_IF_NOT_EQUAL, *register, skipped as i16, value.cast_signed()));
    }
    program.extend_from_slice(decide);
}

/// The program that is attached to a group; closing it leaves it attached.
#[derive(Debug)]
pub(super) struct DeviceProgram {
    fd: OwnedFd,
}

impl DeviceProgram {
    /// Puts a group's first rules into force.
    pub fn attach(group: BorrowedFd<'_>, program: &[Instruction]) -> Result<Self, CgroupError> {
        let fd = load(program)?;
        attach(group, fd.as_fd(), None)?;
        Ok(Self { fd })
    }

    /// Exchanges the rules; there is no moment without any.
    pub fn replace(&mut self, group: BorrowedFd<'_>, program: &[Instruction]) -> Result<(), CgroupError> {
        let fd = load(program)?;
        attach(group, fd.as_fd(), Some(self.fd.as_fd()))?;
        self.fd = fd;
        Ok(())
    }
}

// bpf(2).
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// The head of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The head of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

fn load(program: &[Instruction]) -> Result<OwnedFd, CgroupError> {
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"dewar_devices\0\0\0",
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: BPF_PROG_LOAD returned this descriptor to us and to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(group: BorrowedFd<'_>, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> Result<(), CgroupError> {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().cast_unsigned();
    let attributes = AttachAttributes {
        target: number(group),
        program: number(program),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | if replaced.is_some() { BPF_F_REPLACE } else { 0 },
        replaced: replaced.map_or(0, number),
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_int, CgroupError> {
    let attributes: *const T = attributes;
    // SAFETY: the attributes are a live, fully initialised head of union bpf_attr of the size given, and what they point
    // at outlives the call, which only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    libc::c_int::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(|| CgroupError::DeviceProgram {
        source: Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; panics on what its verifier would refuse of the instructions used here.
    fn run(program: &[Instruction], kind: u8, major: u32, minor: u32, access: u8) -> bool {
        let context = [u32::from(kind) | u32::from(access) << 16, major, minor];
        let mut registers: [Option<u64>; 7] = [None; 7];
        let mut at = 0;
        loop {
            let i = program[at];
            let (destination, source) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let value = |r: usize| registers[r].expect("is initialised");
            let mut jump = false;
            match i.code {
                LOAD_WORD => {
                    assert_eq!(source, usize::from(CONTEXT));
                    registers[destination] = Some(context[i.offset as usize / 4].into());
                }
                MOVE_IMMEDIATE => registers[destination] = Some(i.immediate as u64),
                MOVE_REGISTER => registers[destination] = Some(value(source)),
                AND32_IMMEDIATE => registers[destination] = Some(value(destination) & u64::from(i.immediate as u32)),
                SHIFT_RIGHT32_IMMEDIATE => {
                    registers[destination] = Some((value(destination) as u32 >> i.immediate).into())
                }
                JUMP32_IF_EQUAL => jump = value(destination) as u32 == i.immediate as u32,
                JUMP32_IF_NOT_EQUAL => jump = value(destination) as u32 != i.immediate as u32,
                EXIT => return value(0) == 1,
                other => panic!("unknown opcode {other:#x}"),
            }
            at += 1 + if jump { usize::try_from(i.offset).expect("jumps forward") } else { 0 };
        }
    }

    fn rules(json: &str) -> Vec<Instruction> {
        compile(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).expect("parses")).expect("compiles")
    }

    #[test]
    fn without_rules_only_the_standard_devices_are_allowed() {
        let program = rules("[]");
        assert!(run(&program, CHAR, 1, 3, READ | WRITE));
        assert!(run(&program, CHAR, 136, 7, READ | WRITE));
        assert!(run(&program, CHAR, 10, 200, MKNOD));
        assert!(run(&program, BLOCK, 8, 0, MKNOD));
        assert!(!run(&program, CHAR, 10, 200, READ));
        assert!(!run(&program, BLOCK, 8, 0, READ));
        assert!(!run(&program, BLOCK, 1, 3, READ));
        assert!(!run(&program, CHAR, 1, 1, READ | MKNOD));
    }

    #[test]
    fn the_last_matching_rule_wins() {
        let program = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":5,"access":"w"}]"#,
        );
        assert!(run(&program, CHAR, 10, 4, READ | WRITE));
        assert!(run(&program, CHAR, 10, 5, READ));
        assert!(!run(&program, CHAR, 10, 5, WRITE));
        assert!(!run(&program, CHAR, 10, 5, READ | WRITE), "a denied kind of access hides behind an allowed one");
        assert!(!run(&program, CHAR, 11, 5, READ));
        assert!(!run(&program, BLOCK, 10, 4, READ));
    }

    #[test]
    fn separate_permissions_add_up() {
        let program = rules(
            r#"[{"allow":true,"type":"b","major":8,"minor":0,"access":"r"},
                {"allow":true,"type":"b","major":8,"minor":0,"access":"w"}]"#,
        );
        assert!(run(&program, BLOCK, 8, 0, READ | WRITE));
        assert!(!run(&program, BLOCK, 8, 1, READ));
    }

    #[test]
    fn all_devices_can_be_allowed_and_exceptions_made() {
        let everything = rules(r#"[{"allow":false},{"allow":true,"access":"rwm"}]"#);
        assert!(run(&everything, BLOCK, u32::MAX, u32::MAX, READ | WRITE | MKNOD));
        let but_one = rules(r#"[{"allow":true,"type":"a"},{"allow":false,"type":"b","major":8,"minor":-1}]"#);
        assert!(run(&but_one, BLOCK, 9, 0, READ));
        assert!(!run(&but_one, BLOCK, 8, 3, READ));
    }

    #[test]
    fn a_rule_for_everything_ends_the_program() {
        let program = rules(r#"[{"allow":true,"type":"c","major":77},{"allow":false}]"#);
        assert_eq!(program, rules(r#"[{"allow":false}]"#));
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        for json in [
            r#"[{"allow":true,"type":"p"}]"#,
            r#"[{"allow":true,"access":"rx"}]"#,
            r#"[{"allow":true,"type":"c","major":-2}]"#,
            r#"[{"allow":true,"type":"c","minor":4294967296}]"#,
        ] {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).expect("parses");
            assert!(matches!(compile(&rules), Err(CgroupError::Invalid { .. })), "{json}");
        }
    }

    #[test]
    fn the_number_of_rules_is_bounded() {
        let one: LinuxDeviceCgroup = serde_json::from_str(r#"{"allow":true,"type":"c","major":3}"#).expect("parses");
        assert!(compile(&vec![one.clone(); MAX_RULES]).is_ok());
        assert!(compile(&vec![one; MAX_RULES + 1]).is_err());
    }
}
