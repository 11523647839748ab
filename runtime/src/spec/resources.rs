//! Limits: memory, CPU, processes, devices, and resource limits of the process.

use oci_spec::runtime::{
    LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

use super::{RunOptions, SpecError, Ulimit, parse};

pub(super) const MEMORY_LEAST: u64 = 6 << 20;
const SHARES_LEAST: u64 = 2;
const SHARES_MOST: u64 = 262_144;
const CPU_PERIOD: u64 = 100_000;
/// A machine has at most this many CPUs.
const CPUS_MOST: u32 = 32;
const NANO: u64 = 1_000_000_000;

/// The limits that `options` amount to.
pub(super) fn of(options: &RunOptions) -> Result<LinuxResources, SpecError> {
    let mut resources = LinuxResources::default();
    resources.set_devices(Some(devices(options.privileged))).set_memory(memory(options)?).set_cpu(cpu(options)?);
    if options.pids_limit != 0 {
        let mut pids = LinuxPids::default();
        pids.set_limit(if options.pids_limit < 0 { -1 } else { options.pids_limit });
        resources.set_pids(Some(pids));
    }
    Ok(resources)
}

fn memory(options: &RunOptions) -> Result<Option<LinuxMemory>, SpecError> {
    let (limit, swap) = (options.memory, options.memory_swap);
    if limit == 0 {
        return if swap > 0 { Err(SpecError::SwapWithoutMemory) } else { Ok(None) };
    }
    if limit < MEMORY_LEAST {
        return Err(SpecError::MemoryTooSmall);
    }
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    if swap > 0 && swap < limit {
        return Err(SpecError::SwapBelowMemory);
    }
    let swap = if swap == 0 { limit.saturating_mul(2) } else { swap };
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(limit)).set_swap(Some(swap));
    Ok(Some(memory))
}

fn cpu(options: &RunOptions) -> Result<Option<LinuxCpu>, SpecError> {
    let mut cpu = LinuxCpu::default();
    if options.nano_cpus > 0 {
        let (quota, period) = quota_of(options.nano_cpus)?;
        cpu.set_period(Some(period)).set_quota(Some(quota));
    }
    cpu.set_shares(shares(options.cpu_shares));
    if let Some(cpus) = options.cpuset_cpus.as_ref().filter(|c| !c.is_empty()) {
        check_cpuset(cpus)?;
        cpu.set_cpus(Some(cpus.clone()));
    }
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

/// Quota and period in microseconds for billionths of a CPU.
pub(super) fn quota_of(nano_cpus: u64) -> Result<(i64, u64), SpecError> {
    if nano_cpus < NANO / 100 || nano_cpus > u64::from(CPUS_MOST) * NANO {
        return Err(SpecError::CpuRange { most: CPUS_MOST });
    }
    Ok((i64::try_from(nano_cpus / (NANO / CPU_PERIOD)).unwrap_or(i64::MAX), CPU_PERIOD))
}

/// Within the kernel's range; `None` for 0, the kernel's default.
pub(super) fn shares(shares: u64) -> Option<u64> {
    (shares > 0).then(|| shares.clamp(SHARES_LEAST, SHARES_MOST))
}

/// A list of CPUs that a machine can have.
pub(super) fn check_cpuset(cpus: &str) -> Result<(), SpecError> {
    if parse::cpuset(cpus)? > u64::from(CPUS_MOST) {
        return Err(SpecError::CpusetRange { text: cpus.to_owned(), last: u64::from(CPUS_MOST - 1) });
    }
    Ok(())
}

fn device(allow: bool, number: Option<(i64, i64)>) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(number.map(|_| LinuxDeviceType::C))
        .set_major(number.map(|(major, _)| major))
        .set_minor(number.map(|(_, minor)| minor))
        .set_access(Some("rwm".into()));
    rule
}

/// zero, null, urandom, random, tty and console; never fuse.
fn devices(privileged: bool) -> Vec<LinuxDeviceCgroup> {
    if privileged {
        return vec![device(true, None)];
    }
    let allowed = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];
    let mut rules = vec![device(false, None)];
    rules.extend(allowed.into_iter().map(|number| device(true, Some(number))));
    rules.push(device(false, Some((10, 229))));
    rules
}

/// `None` when there are none: the guest's own apply.
pub(super) fn rlimits(ulimits: &[Ulimit]) -> Option<Vec<PosixRlimit>> {
    let mut limits: Vec<PosixRlimit> = Vec::new();
    for ulimit in ulimits {
        let Some(typ) = rlimit_type(ulimit.name) else { continue };
        // -1 is RLIM_INFINITY.
        let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
        let limit = PosixRlimitBuilder::default().typ(typ).soft(value(ulimit.soft)).hard(value(ulimit.hard)).build();
        limits.retain(|other| other.typ() != typ);
        limits.push(limit.expect("all its fields have defaults and none is validated"));
    }
    (!limits.is_empty()).then_some(limits)
}

fn rlimit_type(name: &str) -> Option<PosixRlimitType> {
    format!("RLIMIT_{}", name.to_ascii_uppercase()).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_of(memory: u64, memory_swap: i64) -> Result<Option<(i64, i64)>, String> {
        let options = RunOptions { memory, memory_swap, ..RunOptions::default() };
        let resources = of(&options).map_err(|e| e.to_string())?;
        Ok(resources.memory().map(|m| (m.limit().expect("a limit"), m.swap().expect("a limit"))))
    }

    #[test]
    fn swap_is_docker_s() {
        const M: i64 = 1 << 20;
        assert_eq!(memory_of(0, 0), Ok(None));
        assert_eq!(memory_of(64 << 20, 0), Ok(Some((64 * M, 128 * M))));
        assert_eq!(memory_of(64 << 20, -1), Ok(Some((64 * M, -1))));
        assert_eq!(memory_of(64 << 20, 64 * M), Ok(Some((64 * M, 64 * M))));
        assert_eq!(memory_of(5 << 20, 0), Err("Minimum memory limit allowed is 6MB".into()));
        assert!(memory_of(64 << 20, 63 * M).expect_err("less than memory").contains("larger than memory"));
        assert!(memory_of(0, M).expect_err("no memory").contains("always set the Memory limit"));
    }

    #[test]
    fn cpus_become_a_quota_of_a_tenth_of_a_second() {
        let cpu = |nano_cpus| of(&RunOptions { nano_cpus, ..RunOptions::default() }).map(|r| r.cpu().clone());
        let half = cpu(NANO / 2).expect("valid").expect("limited");
        assert_eq!((half.quota(), half.period()), (Some(50_000), Some(100_000)));
        assert!(cpu(0).expect("valid").is_none());
        assert!(cpu(NANO / 200).is_err());
        assert!(cpu(33 * NANO).is_err());
        let rest = RunOptions { cpu_shares: 1, cpuset_cpus: Some("0,2".into()), ..RunOptions::default() };
        let rest = of(&rest).expect("valid").cpu().clone().expect("limited");
        assert_eq!((rest.shares(), rest.cpus().as_deref()), (Some(2), Some("0,2")));
    }

    #[test]
    fn processes_and_devices() {
        let limit = |pids_limit| {
            let resources = of(&RunOptions { pids_limit, ..RunOptions::default() }).expect("valid");
            resources.pids().map(|p| p.limit())
        };
        assert_eq!((limit(0), limit(-1), limit(10)), (None, Some(-1), Some(10)));
        let rules = devices(false);
        assert!(!rules[0].allow() && rules[0].major().is_none());
        assert_eq!(rules.iter().filter(|r| r.allow()).count(), 6);
        assert!(devices(true)[0].allow());
    }

    #[test]
    fn every_name_of_a_limit_has_a_type_and_the_last_one_wins() {
        let names = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack";
        for name in names.split(' ') {
            let ulimit = parse::ulimit(&format!("{name}=1")).expect("parses");
            assert!(rlimits(&[ulimit]).is_some_and(|l| l.len() == 1), "{name}");
        }
        let twice = ["nofile=1:2", "nofile=3:-1"].map(|t| parse::ulimit(t).expect("parses"));
        let limits = rlimits(&twice).expect("limits");
        assert_eq!((limits.len(), limits[0].soft(), limits[0].hard()), (1, 3, u64::MAX));
        assert!(rlimits(&[]).is_none());
    }
}
