//! Runs programs as the kernel would, and compares them with what the section says.

use oci_spec::runtime::LinuxSeccomp;

use super::*;
use crate::seccomp::{Program, SeccompError};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
const EPERM: u32 = ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

fn parse(json: &str) -> LinuxSeccomp {
    serde_json::from_str(json).expect("parses")
}

fn compile(json: &str) -> Vec<sock_filter> {
    Program::compile(&parse(json), false).expect("compiles").filter
}

/// Executes a program; panics on whatever the kernel's checker would refuse. Returns the verdict and the steps it took.
fn execute(program: &[sock_filter], arch: u32, number: u32, arguments: [u64; 6]) -> (u32, usize) {
    let load = |offset: u32| match offset {
        NUMBER => number,
        ARCH => arch,
        _ => {
            let argument = arguments[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut accumulator, mut at) = (0, 0);
    for step in 1..=program.len() {
        let i = &program[at];
        at += 1;
        let holds = match i.code {
            LOAD => {
                accumulator = load(i.k);
                continue;
            }
            AND => {
                accumulator &= i.k;
                continue;
            }
            JUMP => {
                at += i.k as usize;
                continue;
            }
            RETURN => return (i.k, step),
            JUMP_IF_EQUAL => accumulator == i.k,
            JUMP_IF_ABOVE => accumulator > i.k,
            JUMP_IF_AT_LEAST => accumulator >= i.k,
            other => panic!("unknown opcode {other:#x}"),
        };
        at += usize::from(if holds { i.jt } else { i.jf });
    }
    panic!("the program does not end");
}

fn native(program: &[sock_filter], name: &str, arguments: [u64; 6]) -> u32 {
    execute(program, ARCH_X86_64, numbers::x86_64(name).expect("is known"), arguments).0
}

fn compat(program: &[sock_filter], name: &str, arguments: [u64; 6]) -> u32 {
    execute(program, ARCH_I386, numbers::i386(name).expect("is known"), arguments).0
}

#[test]
fn names_that_no_table_knows_are_passed_over_unless_they_must_not_be() {
    let json = |name: &str| {
        parse(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read","{name}"],"action":"SCMP_ACT_ERRNO"}}]}}"#
        ))
    };
    for (name, strict, taken) in [("nosuchcall", false, true), ("nosuchcall", true, false), ("socketcall", true, true)]
    {
        assert_eq!(Program::compile(&json(name), strict).is_ok(), taken, "{name}");
    }
}

#[test]
fn every_action_has_its_return_value() {
    for (action, expected) in [
        (r#""SCMP_ACT_ALLOW""#, ALLOW),
        (r#""SCMP_ACT_KILL""#, 0),
        (r#""SCMP_ACT_KILL_THREAD""#, 0),
        (r#""SCMP_ACT_KILL_PROCESS""#, 0x8000_0000),
        (r#""SCMP_ACT_TRAP""#, 0x0003_0000),
        (r#""SCMP_ACT_LOG""#, 0x7ffc_0000),
        (r#""SCMP_ACT_ERRNO""#, 0x0005_0001),
        (r#""SCMP_ACT_ERRNO","errnoRet":38"#, 0x0005_0026),
        (r#""SCMP_ACT_ERRNO","errnoRet":0"#, 0x0005_0000),
        (r#""SCMP_ACT_TRACE","errnoRet":7"#, 0x7ff0_0007),
    ] {
        let program = compile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["read","nonsense"],"action":{action}}}]}}"#
        ));
        assert_eq!(native(&program, "read", [0; 6]), expected, "{action}");
        assert_eq!(native(&program, "write", [0; 6]), ALLOW);
    }
}

#[test]
fn other_ways_into_the_kernel_kill_unless_they_are_named() {
    let program = compile(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"]}"#);
    assert_eq!(native(&program, "read", [0; 6]), ALLOW);
    assert_eq!(execute(&program, ARCH_I386, 3, [0; 6]).0, KILL_THREAD);
    assert_eq!(execute(&program, 0xc000_00b7, 0, [0; 6]).0, KILL_THREAD);
    assert_eq!(execute(&program, ARCH_X86_64, numbers::X32_BIT, [0; 6]).0, KILL_THREAD);
    assert_eq!(execute(&program, ARCH_X86_64, u32::MAX, [0; 6]).0, ALLOW, "a call that a ptracer skips");
}

#[test]
fn each_architecture_has_its_own_numbers() {
    let program = compile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32",
            "SCMP_ARCH_AARCH64"],"syscalls":[{"names":["ioctl","stat64"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(native(&program, "ioctl", [0; 6]), ALLOW);
    assert_eq!(compat(&program, "ioctl", [0; 6]), ALLOW);
    assert_eq!(compat(&program, "stat64", [0; 6]), ALLOW);
    assert_eq!(execute(&program, ARCH_X86_64, numbers::X32_BIT | 514, [0; 6]).0, ALLOW);
    assert_eq!(execute(&program, ARCH_X86_64, numbers::X32_BIT | 16, [0; 6]).0, EPERM);
    assert_eq!(compat(&program, "read", [0; 6]), EPERM);
    assert_eq!(execute(&program, ARCH_X86_64, 54, [0; 6]).0, ENOSYS);
    assert_eq!(execute(&program, ARCH_I386, 16, [0; 6]).0, EPERM);
}

#[test]
fn calls_inside_socketcall_and_ipc_are_covered() {
    let program = compile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
            "syscalls":[{"names":["socket","shmat"],"action":"SCMP_ACT_ERRNO"},
                        {"names":["bind"],"action":"SCMP_ACT_LOG"},
                        {"names":["bind"],"action":"SCMP_ACT_ERRNO"},
                        {"names":["socketcall"],"action":"SCMP_ACT_LOG"}]}"#,
    );
    assert_eq!(compat(&program, "socket", [0; 6]), EPERM);
    assert_eq!(compat(&program, "socketcall", [1, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(compat(&program, "socketcall", [2, 0, 0, 0, 0, 0]), libc::SECCOMP_RET_LOG);
    assert_eq!(compat(&program, "ipc", [21, 0, 0, 0, 0, 0]), EPERM);
    assert_eq!(compat(&program, "ipc", [22, 0, 0, 0, 0, 0]), ALLOW);
}

#[test]
fn newer_calls_than_the_section_knows_return_enosys() {
    let json = |default: &str| {
        format!(
            r#"{{"defaultAction":{default},"syscalls":[{{"names":["read"],"action":"SCMP_ACT_LOG"}},
                {{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}}]}}"#
        )
    };
    for restrictive in [r#""SCMP_ACT_ERRNO""#, r#""SCMP_ACT_KILL""#] {
        let program = compile(&json(restrictive));
        assert_eq!(native(&program, "clone3", [0; 6]), ENOSYS);
        assert_eq!(native(&program, "close_range", [0; 6]), ENOSYS);
        assert_eq!(execute(&program, ARCH_X86_64, 5000, [0; 6]).0, ENOSYS);
        assert_ne!(native(&program, "write", [0; 6]), ENOSYS);
    }
    let program = compile(&json(r#""SCMP_ACT_ALLOW""#));
    assert_eq!(native(&program, "close_range", [0; 6]), ALLOW);
    let program = compile(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#);
    assert_eq!(native(&program, "close_range", [0; 6]), EPERM);
}

#[test]
fn the_first_matching_entry_decides() {
    let program = compile(
        r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
            {"names":["personality"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":8,"op":"SCMP_CMP_GE"}]},
            {"names":["personality"],"action":"SCMP_ACT_ERRNO"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(native(&program, "personality", [8, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(native(&program, "personality", [9, 0, 0, 0, 0, 0]), libc::SECCOMP_RET_LOG);
    assert_eq!(native(&program, "personality", [7, 0, 0, 0, 0, 0]), EPERM);
}

#[test]
fn conditions_are_all_required_unless_they_look_at_one_argument() {
    let both = compile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":5,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(native(&both, "read", [1, 0, 0, 0, 0, 2]), ALLOW);
    assert_eq!(native(&both, "read", [1, 0, 0, 0, 0, 3]), EPERM);
    assert_eq!(native(&both, "read", [2, 0, 0, 0, 0, 2]), EPERM);
    let either = compile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
            {"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    for (argument, expected) in [(1, ALLOW), (2, ALLOW), (3, EPERM)] {
        assert_eq!(native(&either, "read", [argument, 0, 0, 0, 0, 0]), expected);
    }
}

#[test]
fn all_comparisons_are_of_64_bits() {
    const INTERESTING: [u64; 13] = [
        0,
        1,
        2,
        0x7fff_ffff,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0001,
        0x1_ffff_ffff,
        0x2_0000_0000,
        0x8000_0000_0000_0000,
        0xffff_ffff_0000_0000,
        0xffff_ffff_ffff_fffe,
        u64::MAX,
    ];
    type Operator = (&'static str, fn(u64, u64) -> bool);
    let operators: [Operator; 7] = [
        ("NE", |a, b| a != b),
        ("LT", |a, b| a < b),
        ("LE", |a, b| a <= b),
        ("EQ", |a, b| a == b),
        ("GE", |a, b| a >= b),
        ("GT", |a, b| a > b),
        ("MASKED_EQ", |a, b| a & b == 1),
    ];
    for (name, holds) in operators {
        for value in INTERESTING {
            let program = compile(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["lseek"],"action":"SCMP_ACT_ALLOW",
                    "args":[{{"index":2,"value":{value},"valueTwo":1,"op":"SCMP_CMP_{name}"}}]}}]}}"#
            ));
            for argument in INTERESTING {
                let expected = if holds(argument, value) { ALLOW } else { EPERM };
                let found = native(&program, "lseek", [9, 9, argument, 9, 9, 9]);
                assert_eq!(found, expected, "{argument:#x} {name} {value:#x}");
            }
        }
    }
}

#[test]
fn arguments_of_32_bit_calls_are_compared_with_the_lower_half() {
    let program = compile(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["personality"],
            "action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_EQ"}]}]}"#,
    );
    assert_eq!(compat(&program, "personality", [0xffff_ffff, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(native(&program, "personality", [0xffff_ffff, 0, 0, 0, 0, 0]), EPERM);
}

/// A section with an entry of its own, with six conditions, for each known call but every third.
fn large() -> String {
    let conditions: Vec<String> =
        (0..6).map(|i| format!(r#"{{"index":{i},"value":{},"op":"SCMP_CMP_LE"}}"#, 1u64 << 40)).collect();
    let entries: Vec<String> = (0..60)
        .map(|i| {
            let name = super::super::x86_64::NUMBERS[i * 6].0;
            format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#, conditions.join(","))
        })
        .collect();
    format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, entries.join(","))
}

#[test]
fn jumps_reach_beyond_255_instructions() {
    let program = compile(&large());
    assert!(program.len() > 1500);
    let named: Vec<&str> = (0..60).map(|i| super::super::x86_64::NUMBERS[i * 6].0).collect();
    let newest = named.iter().filter_map(|name| numbers::x86_64(name)).max().expect("has calls");
    for (name, number) in super::super::x86_64::NUMBERS {
        let expected = match named.contains(&name) {
            true => ALLOW,
            false if number > newest => ENOSYS,
            false => EPERM,
        };
        assert_eq!(native(&program, name, [1 << 40; 6]), expected, "{name}");
        assert_ne!(native(&program, name, [0, 0, 0, 0, 0, (1 << 40) + 1]), ALLOW, "{name}");
    }
}

#[test]
fn a_call_costs_few_instructions() {
    let names: Vec<String> =
        super::super::x86_64::NUMBERS.iter().step_by(2).map(|(name, _)| format!("\"{name}\"")).collect();
    let program = compile(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":[{}],"action":"SCMP_ACT_ALLOW"}}]}}"#,
        names.join(",")
    ));
    for (_, number) in super::super::x86_64::NUMBERS {
        let (_, steps) = execute(&program, ARCH_X86_64, number, [0; 6]);
        assert!(steps <= 16, "{number} takes {steps}");
    }
}

#[test]
fn programs_that_the_kernel_would_not_take_are_refused() {
    let entry = r#"{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
    let entries = vec![entry; 900].join(",");
    let seccomp = parse(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{entries}]}}"#));
    assert!(matches!(Program::compile(&seccomp, false), Err(SeccompError::TooLong { length: 4097.. })));
}
