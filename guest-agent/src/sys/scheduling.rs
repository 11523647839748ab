//! Scheduling policy, I/O priority and personality of the calling process.

use std::io;

use super::{check, check_long};

/// linux/personality.h
pub const PER_LINUX: u32 = 0;
pub const PER_LINUX32: u32 = 8;

/// What sched_setattr(2) takes. Times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2).
pub fn set_policy(policy: &Policy) -> io::Result<()> {
    // SAFETY: an all-zero sched_attr is a valid one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = policy.policy;
    attributes.sched_flags = policy.flags;
    attributes.sched_nice = policy.nice;
    attributes.sched_priority = policy.priority;
    attributes.sched_runtime = policy.runtime;
    attributes.sched_deadline = policy.deadline;
    attributes.sched_period = policy.period;
    // SAFETY: the attributes are of the size that they say and outlive the call.
    check_long(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

/// ioprio_set(2): the class in the upper three bits of the value.
pub fn set_io_priority(value: u16) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_set takes integers.
    check_long(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, libc::c_int::from(value)) })?;
    Ok(())
}

/// personality(2).
pub fn set_personality(personality: u32) -> io::Result<()> {
    // SAFETY: personality takes an integer.
    check(unsafe { libc::personality(libc::c_ulong::from(personality)) })?;
    Ok(())
}
