//! Writes a policy as a classic BPF program (kernel: Documentation/userspace-api/seccomp_filter.rst).
//!
//! All numbers of an architecture are cut into intervals with one outcome each, and the program searches these by halves:
//! a call costs about eight comparisons, whatever the section's length. Programs are assembled from their leaves upwards,
//! so that every length is known when a jump over it is written.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::{
    numbers,
    rules::{Comparison, Condition, KILL_THREAD, Policy, Rule},
};

// linux/audit.h.
pub(super) const ARCH_X86_64: u32 = 0xc000_003e;
pub(super) const ARCH_I386: u32 = 0x4000_0003;

// Opcodes (linux/filter.h): the accumulator is all that is used.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ABOVE: u16 = 0x25;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What a ptracer sets to skip a call. It is not an x32 call, though its bits say so.
const SKIPPED: u32 = u32::MAX;

/// Arguments of 32-bit calls have nothing in their upper half, whatever the section compares them with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits32,
    Bits64,
}

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The rules of each call, in the section's order.
type Calls = BTreeMap<u32, Vec<Rule>>;

/// What happens from some number on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome<'a> {
    Return(u32),
    Check(&'a [Rule]),
}

pub(super) fn generate(policy: &Policy<'_>) -> Vec<sock_filter> {
    let native = calls(policy, numbers::x86_64);
    let x32 = if policy.x32 { calls(policy, numbers::x32) } else { Calls::new() };
    let mut intervals = intervals(policy, 0, &native);
    let skipped = intervals.last().map_or(Outcome::Return(policy.default), |(_, outcome)| outcome.clone());
    if policy.x32 {
        intervals.extend(self::intervals(policy, numbers::X32_BIT, &x32));
    } else {
        intervals.push((numbers::X32_BIT, Outcome::Return(KILL_THREAD)));
    }
    intervals.push((SKIPPED, skipped));
    let long = section(intervals, policy.default, Width::Bits64);

    let mut program = vec![statement(LOAD, ARCH), branch(JUMP_IF_EQUAL, ARCH_X86_64, 1, 0), jump(long.len())];
    program.extend(long);
    if policy.i386 {
        let calls = with_contained(policy, calls(policy, numbers::i386));
        program.push(branch(JUMP_IF_EQUAL, ARCH_I386, 1, 0));
        program.push(statement(RETURN, KILL_THREAD));
        program.extend(section(self::intervals(policy, 0, &calls), policy.default, Width::Bits32));
    } else {
        program.push(statement(RETURN, KILL_THREAD));
    }
    program
}

fn calls(policy: &Policy<'_>, number: impl Fn(&str) -> Option<u32>) -> Calls {
    let mut calls = Calls::new();
    for entry in &policy.entries {
        for number in entry.names.iter().filter_map(|name| number(name)) {
            add(&mut calls, number, &entry.rules);
        }
    }
    calls
}

fn add(calls: &mut Calls, number: u32, rules: &[Rule]) {
    let known = calls.entry(number).or_default();
    // What stands behind a rule that always matches is never reached.
    if known.last().is_none_or(|last| !last.conditions.is_empty()) {
        known.extend_from_slice(rules);
    }
}

/// Adds what entries say about the calls inside `socketcall` and `ipc`, before what they say about these themselves.
fn with_contained(policy: &Policy<'_>, mut calls: Calls) -> Calls {
    let mut contained = Calls::new();
    for entry in &policy.entries {
        let [Rule { conditions, verdict }] = entry.rules.as_slice() else { continue };
        if !conditions.is_empty() {
            continue;
        }
        for (call, argument) in entry.names.iter().filter_map(|name| numbers::i386_container(name)) {
            let condition = Condition { argument: 0, comparison: Comparison::Eq, value: argument.into() };
            let rules: &mut Vec<Rule> = contained.entry(call).or_default();
            if rules.iter().all(|rule| rule.conditions != [condition]) {
                rules.push(Rule { conditions: vec![condition], verdict: *verdict });
            }
        }
    }
    for (call, mut rules) in contained {
        let own = calls.remove(&call).unwrap_or_default();
        // Where the call itself is decided in one way, only differing rules need asking.
        if let [Rule { conditions, verdict }] = own.as_slice() {
            let decided = conditions.is_empty().then_some(*verdict);
            rules.retain(|rule| Some(rule.verdict) != decided);
        }
        rules.extend(own);
        calls.insert(call, rules);
    }
    calls
}

/// Cuts the numbers from `first` on into intervals, each named by its first number.
fn intervals<'a>(policy: &Policy<'_>, first: u32, calls: &'a Calls) -> Vec<(u32, Outcome<'a>)> {
    let unknown = Outcome::Return(policy.default);
    let mut out = vec![(first, unknown.clone())];
    for (&number, rules) in calls {
        let outcome = match rules.as_slice() {
            [Rule { conditions, verdict }] if conditions.is_empty() => Outcome::Return(*verdict),
            rules => Outcome::Check(rules),
        };
        out.push((number, outcome));
        out.push((number.saturating_add(1), unknown.clone()));
    }
    if let (Some(newer), Some((_, last)), false) = (policy.newer, out.last_mut(), calls.is_empty()) {
        *last = Outcome::Return(newer);
    }
    out
}

fn section(mut intervals: Vec<(u32, Outcome<'_>)>, default: u32, width: Width) -> Vec<sock_filter> {
    // Of two with one first number the later one counts, and neighbours that agree are one.
    intervals.reverse();
    intervals.dedup_by_key(|(first, _)| *first);
    intervals.reverse();
    intervals.dedup_by(|later, earlier| later.1 == earlier.1);
    let mut section = vec![statement(LOAD, NUMBER)];
    section.extend(search(&intervals, default, width));
    section
}

fn search(intervals: &[(u32, Outcome<'_>)], default: u32, width: Width) -> Vec<sock_filter> {
    let (low, high) = intervals.split_at(intervals.len() / 2);
    let Some((pivot, outcome)) = high.first() else { return Vec::new() };
    if low.is_empty() {
        return decide(outcome, default, width);
    }
    let below = search(low, default, width);
    let mut program = match u8::try_from(below.len()) {
        Ok(length) => vec![branch(JUMP_IF_AT_LEAST, *pivot, length, 0)],
        Err(_) => vec![branch(JUMP_IF_AT_LEAST, *pivot, 0, 1), jump(below.len())],
    };
    program.extend(below);
    program.extend(search(high, default, width));
    program
}

/// Jumps over `length` instructions. Programs whose length does not fit are refused when they are complete.
fn jump(length: usize) -> sock_filter {
    statement(JUMP, u32::try_from(length).unwrap_or(u32::MAX))
}

fn decide(outcome: &Outcome<'_>, default: u32, width: Width) -> Vec<sock_filter> {
    match outcome {
        Outcome::Return(verdict) => vec![statement(RETURN, *verdict)],
        Outcome::Check(rules) => {
            let mut program: Vec<sock_filter> = rules.iter().flat_map(|rule| check(rule, width)).collect();
            if rules.last().is_none_or(|last| !last.conditions.is_empty()) {
                program.push(statement(RETURN, default));
            }
            program
        }
    }
}

/// Returns the rule's verdict, or ends behind itself when a condition does not hold. At most 6 conditions of at most 6
/// instructions: all jumps fit.
fn check(rule: &Rule, width: Width) -> Vec<sock_filter> {
    let mut steps: Vec<Step> = rule.conditions.iter().flat_map(|condition| compare(condition, width)).collect();
    steps.push(Step::plain(statement(RETURN, rule.verdict)));
    let length = steps.len();
    let resolve = |(index, step): (usize, Step)| {
        let end = u8::try_from(length.saturating_sub(index + 1)).unwrap_or(u8::MAX);
        let mut instruction = step.instruction;
        if step.fails_if_true {
            instruction.jt = end;
        }
        if step.fails_if_false {
            instruction.jf = end;
        }
        instruction
    };
    steps.into_iter().enumerate().map(resolve).collect()
}

/// An instruction that may jump behind its rule.
#[derive(Clone, Copy)]
struct Step {
    instruction: sock_filter,
    fails_if_true: bool,
    fails_if_false: bool,
}

impl Step {
    const fn plain(instruction: sock_filter) -> Self {
        Self { instruction, fails_if_true: false, fails_if_false: false }
    }

    /// Skips `skip` instructions when true, fails when false.
    const fn require(code: u16, k: u32, skip: u8) -> Self {
        Self { instruction: branch(code, k, skip, 0), fails_if_true: false, fails_if_false: true }
    }

    /// Fails when true, skips `skip` instructions when false.
    const fn refuse(code: u16, k: u32, skip: u8) -> Self {
        Self { instruction: branch(code, k, 0, skip), fails_if_true: true, fails_if_false: false }
    }
}

/// Compares the 64 bits by halves, the upper one first.
fn compare(condition: &Condition, width: Width) -> Vec<Step> {
    let offset = ARGUMENTS + 8 * u32::from(condition.argument);
    let upper = Step::plain(statement(LOAD, offset + 4));
    let lower = Step::plain(statement(LOAD, offset));
    let (high, low) = halves(condition.value, width);
    match condition.comparison {
        Comparison::Eq => {
            vec![upper, Step::require(JUMP_IF_EQUAL, high, 0), lower, Step::require(JUMP_IF_EQUAL, low, 0)]
        }
        Comparison::Ne => {
            let differs = Step::plain(branch(JUMP_IF_EQUAL, high, 0, 2));
            vec![upper, differs, lower, Step::refuse(JUMP_IF_EQUAL, low, 0)]
        }
        Comparison::Gt | Comparison::Ge => {
            let code = if condition.comparison == Comparison::Gt { JUMP_IF_ABOVE } else { JUMP_IF_AT_LEAST };
            let above = Step::plain(branch(JUMP_IF_ABOVE, high, 3, 0));
            vec![upper, above, Step::require(JUMP_IF_EQUAL, high, 0), lower, Step::require(code, low, 0)]
        }
        Comparison::Lt | Comparison::Le => {
            let code = if condition.comparison == Comparison::Lt { JUMP_IF_AT_LEAST } else { JUMP_IF_ABOVE };
            let below = Step::plain(branch(JUMP_IF_EQUAL, high, 0, 2));
            vec![upper, Step::refuse(JUMP_IF_ABOVE, high, 0), below, lower, Step::refuse(code, low, 0)]
        }
        Comparison::MaskedEq { mask } => {
            let (high_mask, low_mask) = halves(mask, width);
            vec![
                upper,
                Step::plain(statement(AND, high_mask)),
                Step::require(JUMP_IF_EQUAL, high, 0),
                lower,
                Step::plain(statement(AND, low_mask)),
                Step::require(JUMP_IF_EQUAL, low, 0),
            ]
        }
    }
}

fn halves(value: u64, width: Width) -> (u32, u32) {
    let high = if width == Width::Bits32 { 0 } else { (value >> 32) as u32 };
    (high, value as u32)
}

#[cfg(test)]
mod tests;
