//! When a process runs: scheduling policy, I/O priority, CPUs, and which kernel it believes to be on (OCI `process`,
//! `linux.personality`).
//!
//! Reading happens in the agent; [`Scheduling::apply`] runs in the child while it is still privileged.

use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority, LinuxPersonality, LinuxPersonalityDomain};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Deserialize;

use crate::{
    container::reading::CpuAffinity,
    error::{Doing, Failure, Result},
    sys::scheduling as sys,
};

/// What the specification asks; nothing where it asks nothing.
#[derive(Debug, Clone, Default)]
pub struct Scheduling {
    policy: Option<sys::Policy>,
    io_priority: Option<u16>,
    first: Option<CpuSet>,
    last: Option<CpuSet>,
}

/// `process.scheduler`, which oci-spec knows by other names of its flags than the specification.
#[derive(Debug, Clone, Deserialize)]
pub struct Scheduler {
    policy: String,
    #[serde(default)]
    nice: i32,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    runtime: u64,
    #[serde(default)]
    deadline: u64,
    #[serde(default)]
    period: u64,
}

const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", libc::SCHED_OTHER as u32),
    ("SCHED_FIFO", libc::SCHED_FIFO as u32),
    ("SCHED_RR", libc::SCHED_RR as u32),
    ("SCHED_BATCH", libc::SCHED_BATCH as u32),
    ("SCHED_IDLE", libc::SCHED_IDLE as u32),
    ("SCHED_DEADLINE", libc::SCHED_DEADLINE as u32),
];

/// linux/sched.h
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

impl Scheduling {
    /// Reads the specification. `affinity` is of exec'd processes only.
    ///
    /// # Errors
    /// `Invalid` for what contradicts itself, `Unsupported` for policies that the kernel does not have.
    pub fn from_spec(
        scheduler: Option<&Scheduler>,
        io_priority: Option<&LinuxIOPriority>,
        affinity: Option<&CpuAffinity>,
    ) -> Result<Self> {
        let list = |text: Option<&String>| text.filter(|text| !text.is_empty()).map(|text| cpus(text)).transpose();
        Ok(Self {
            policy: scheduler.map(policy).transpose()?,
            io_priority: io_priority.map(io_value).transpose()?,
            first: list(affinity.and_then(|affinity| affinity.initial.as_ref()))?,
            last: list(affinity.and_then(|affinity| affinity.last.as_ref()))?,
        })
    }

    /// Sets where the calling process runs until its command does.
    ///
    /// # Errors
    /// When none of the CPUs is one of the machine's.
    pub fn begin(&self) -> Result<()> {
        self.first.as_ref().map_or(Ok(()), |cpus| run_on(cpus, "initial"))
    }

    /// Sets everything else of the calling process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn apply(&self) -> Result<()> {
        if let Some(policy) = &self.policy {
            sys::set_policy(policy).doing(|| "Setting the scheduling policy failed".into())?;
        }
        if let Some(value) = self.io_priority {
            sys::set_io_priority(value).doing(|| "Setting the I/O priority failed".into())?;
        }
        self.last.as_ref().map_or(Ok(()), |cpus| run_on(cpus, "final"))
    }
}

fn run_on(cpus: &CpuSet, which: &str) -> Result<()> {
    sched_setaffinity(None, cpus).doing(|| format!("Running on the {which} CPUs of execCPUAffinity failed"))
}

fn policy(wanted: &Scheduler) -> Result<sys::Policy> {
    let invalid = |reason: &str| Err(Failure::invalid(format!("The scheduler {reason}")));
    let name = wanted.policy.as_str();
    let Some((_, policy)) = POLICIES.iter().find(|(known, _)| *known == name) else {
        return Err(Failure::unsupported(format!("The scheduling policy {name:?} is not one of this kernel")));
    };
    let real_time = matches!(name, "SCHED_FIFO" | "SCHED_RR");
    if !(-20..=19).contains(&wanted.nice) {
        return invalid("has a nice value that is not in -20..=19");
    }
    if wanted.priority != 0 && !real_time {
        return invalid("has a priority, which only SCHED_FIFO and SCHED_RR have");
    }
    let deadline = wanted.runtime != 0 || wanted.deadline != 0 || wanted.period != 0;
    if deadline && name != "SCHED_DEADLINE" {
        return invalid("has a runtime, deadline or period, which only SCHED_DEADLINE has");
    }
    let mut flags = 0;
    for flag in &wanted.flags {
        let known = FLAGS.iter().find(|(known, _)| known == flag);
        let (_, bit) = known.ok_or_else(|| Failure::invalid(format!("{flag:?} is no flag of a scheduler")))?;
        flags |= bit;
    }
    Ok(sys::Policy {
        policy: *policy,
        flags,
        nice: wanted.nice,
        priority: u32::try_from(wanted.priority)
            .map_err(|_| Failure::invalid("The scheduler has a negative priority"))?,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

/// Class and level as ioprio_set(2) takes them.
fn io_value(wanted: &LinuxIOPriority) -> Result<u16> {
    let class: u16 = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let level = u16::try_from(wanted.priority()).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| Failure::invalid("The I/O priority must be in 0..=7"))?;
    Ok(class << 13 | level)
}

/// A list as in cpuset.cpus: numbers and ranges.
fn cpus(list: &str) -> Result<CpuSet> {
    let invalid = || Failure::invalid(format!("{list:?} is no list of CPUs"));
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < CpuSet::MAX_CPU);
        let (Some(first), Some(last)) = (number(first), number(last)) else { return Err(invalid()) };
        if first > last {
            return Err(invalid());
        }
        (first..=last).for_each(|cpu| set.set(cpu));
    }
    Ok(set)
}

/// Checks `linux.personality`; the value for personality(2).
///
/// # Errors
/// `Unsupported` for flags, as the specification knows none.
pub fn personality(wanted: &LinuxPersonality) -> Result<u32> {
    if wanted.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Failure::unsupported("Flags of linux.personality are not supported: none are defined"));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => sys::PER_LINUX,
        LinuxPersonalityDomain::PerLinux32 => sys::PER_LINUX32,
    })
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::*;

    fn scheduler(json: &str) -> std::result::Result<sys::Policy, ErrorKind> {
        policy(&serde_json::from_str(json).expect("parses")).map_err(|failure| failure.kind)
    }

    #[test]
    fn policies_are_read_with_what_belongs_to_them() {
        let fifo = scheduler(r#"{"policy":"SCHED_FIFO","priority":7,"flags":["SCHED_FLAG_RESET_ON_FORK"]}"#);
        let fifo = fifo.expect("valid");
        assert_eq!((fifo.policy, fifo.priority, fifo.flags), (1, 7, 1));
        let deadline = scheduler(
            r#"{"policy":"SCHED_DEADLINE","runtime":10,"deadline":20,"period":30,"flags":["SCHED_FLAG_DL_OVERRUN"]}"#,
        );
        let deadline = deadline.expect("valid");
        assert_eq!((deadline.runtime, deadline.deadline, deadline.period, deadline.flags), (10, 20, 30, 4));
        assert_eq!(scheduler(r#"{"policy":"SCHED_BATCH","nice":-20}"#).expect("valid").nice, -20);
        for wrong in [
            r#"{"policy":"SCHED_OTHER","priority":1}"#,
            r#"{"policy":"SCHED_OTHER","nice":20}"#,
            r#"{"policy":"SCHED_FIFO","runtime":1}"#,
            r#"{"policy":"SCHED_FIFO","priority":-1}"#,
            r#"{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_ODD"]}"#,
        ] {
            assert_eq!(scheduler(wrong).err(), Some(ErrorKind::Invalid), "{wrong}");
        }
        assert_eq!(scheduler(r#"{"policy":"SCHED_ISO"}"#).err(), Some(ErrorKind::Unsupported));
    }

    #[test]
    fn io_priorities_have_a_class_and_a_level() {
        let value = |json: &str| io_value(&serde_json::from_str(json).expect("parses")).map_err(|f| f.kind);
        assert_eq!(value(r#"{"class":"IOPRIO_CLASS_RT","priority":4}"#), Ok(1 << 13 | 4));
        assert_eq!(value(r#"{"class":"IOPRIO_CLASS_IDLE"}"#), Ok(3 << 13));
        assert_eq!(value(r#"{"class":"IOPRIO_CLASS_BE","priority":8}"#), Err(ErrorKind::Invalid));
        assert_eq!(value(r#"{"class":"IOPRIO_CLASS_BE","priority":-1}"#), Err(ErrorKind::Invalid));
    }

    #[test]
    fn cpus_are_numbers_and_ranges() {
        let set = cpus("0-2,5").expect("valid");
        let members: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
        assert_eq!(members, [0, 1, 2, 5]);
        for wrong in ["", "a", "1-", "3-1", "1,,2", "99999", "-1", "0-18446744073709551615"] {
            assert!(cpus(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn there_are_two_personalities() {
        let value = |json: &str| personality(&serde_json::from_str(json).expect("parses")).map_err(|f| f.kind);
        assert_eq!(value(r#"{"domain":"LINUX"}"#), Ok(0));
        assert_eq!(value(r#"{"domain":"LINUX32","flags":[]}"#), Ok(8));
        assert_eq!(value(r#"{"domain":"LINUX32","flags":["X"]}"#), Err(ErrorKind::Unsupported));
    }
}
