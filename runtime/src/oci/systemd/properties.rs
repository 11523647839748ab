//! The properties of a unit: what makes it a container's, and the limits that systemd knows.
//!
//! The same limits are written to the group's files afterwards; systemd must know them, or it would put its own back.

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use zbus::Variant;

use super::super::host_cgroup::{TASKS, io_weight, memory_limit, weight};
use super::Unit;
use crate::{Error, ErrorKind};

pub(in super::super) type Property = (String, Variant<'static>);

/// systemd's `infinity`.
const INFINITY: u64 = u64::MAX;
/// The highest CPU or memory node plus one that a set may name.
const MAX_SET: usize = 1 << 16;

fn property(name: &str, value: impl Into<Variant<'static>>) -> Property {
    (name.to_owned(), value.into())
}

/// Those of a new unit.
pub(super) fn of_unit(unit: &Unit, pid: i32, limits: Vec<Property>) -> Vec<Property> {
    let title = unit.name.rsplit_once('.').map_or(unit.name.as_str(), |(title, _)| title);
    let mut all = vec![property("Description", format!("Dewar container {title}"))];
    if unit.is_slice() {
        // A slice's place is in its name, and it takes no processes from its maker.
        all.push(property("Wants", vec![unit.slice.clone()]));
    } else {
        all.push(property("Slice", unit.slice.clone()));
        all.push(property("Delegate", true));
        all.push(property("PIDs", vec![pid.unsigned_abs()]));
    }
    for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        all.push(property(name, true));
    }
    all.push(property("DefaultDependencies", false));
    all.extend(limits);
    all
}

/// Those of limits, on a host of cgroup v2 alone or of v1, and with what this version of systemd can.
pub(in super::super) fn of_resources(
    resources: &LinuxResources,
    unified: bool,
    version: u32,
) -> Result<Vec<Property>, Error> {
    let mut all = Vec::new();
    let name = |v2, v1| if unified { v2 } else { v1 };
    all.extend(memory_limit(resources).map(|limit| property(name("MemoryMax", "MemoryLimit"), limit)));
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
            let value = if unified { weight(shares) } else { shares };
            all.push(property(name("CPUWeight", "CPUShares"), value));
        }
        quota(cpu, version, &mut all);
        if version >= 244 {
            for (field, set, name) in [("cpus", cpu.cpus(), "AllowedCPUs"), ("mems", cpu.mems(), "AllowedMemoryNodes")]
            {
                let Some(set) = set.as_ref().filter(|set| !set.is_empty()) else { continue };
                all.push(property(name, bits(field, set)?));
            }
        }
    }
    if resources.pids().is_some() {
        all.push(property("TasksMax", TASKS));
    }
    if let Some(given) = resources.block_io().as_ref().and_then(|block| block.weight()).filter(|weight| *weight > 0) {
        let value = if unified { io_weight(given) } else { u64::from(given) };
        all.push(property(name("IOWeight", "BlockIOWeight"), value));
    }
    Ok(all)
}

/// systemd keeps whole percents of a CPU: a quota is rounded up.
fn quota(cpu: &LinuxCpu, version: u32, all: &mut Vec<Property>) {
    let period = cpu.period().filter(|period| *period > 0);
    if let Some(period) = period.filter(|_| version >= 242) {
        all.push(property("CPUQuotaPeriodUSec", period));
    }
    let per_second = match cpu.quota().map(u64::try_from) {
        None => return,
        Some(Ok(quota)) if quota > 0 => {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period.unwrap_or(100_000));
            u64::try_from(exact).unwrap_or(INFINITY / 2).next_multiple_of(10_000)
        }
        Some(_) => INFINITY,
    };
    all.push(property("CPUQuotaPerSecUSec", per_second));
}

/// A set such as `0-2,7` as bits, the lowest first.
fn bits(field: &str, text: &str) -> Result<Vec<u8>, Error> {
    let wrong = || {
        let text = format!("linux.resources.cpu.{field} {text:?} is no set: give one such as 0-2,7");
        Error::new(ErrorKind::Invalid, text)
    };
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MAX_SET).ok_or_else(wrong);
    let mut bits = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        bits.resize(bits.len().max(last / 8 + 1), 0_u8);
        for number in first..=last {
            if let Some(byte) = bits.get_mut(number / 8) {
                *byte |= 1 << (number % 8);
            }
        }
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, unified: bool, version: u32) -> Vec<Property> {
        let resources: LinuxResources = serde_json::from_str(text).expect("valid");
        of_resources(&resources, unified, version).expect("valid")
    }

    const ALL: &str = r#"{"memory":{"limit":67108864},
        "cpu":{"shares":1024,"quota":50001,"period":100000,"cpus":"0-1,9","mems":"0"},
        "pids":{"limit":10},"blockIO":{"weight":505}}"#;

    #[test]
    fn limits_are_said_as_systemd_has_them() {
        let memory: u64 = (64 << 20) + (1 << 20) + (192 << 20);
        assert_eq!(
            of(ALL, true, 252),
            [
                property("MemoryMax", memory),
                property("CPUWeight", 39_u64),
                property("CPUQuotaPeriodUSec", 100_000_u64),
                property("CPUQuotaPerSecUSec", 510_000_u64),
                property("AllowedCPUs", vec![3_u8, 2]),
                property("AllowedMemoryNodes", vec![1_u8]),
                property("TasksMax", 512_u64),
                property("IOWeight", 5000_u64),
            ]
        );
        assert_eq!(
            of(ALL, false, 241),
            [
                property("MemoryLimit", memory),
                property("CPUShares", 1024_u64),
                property("CPUQuotaPerSecUSec", 510_000_u64),
                property("TasksMax", 512_u64),
                property("BlockIOWeight", 505_u64),
            ]
        );
    }

    #[test]
    fn no_limit_is_infinity_and_what_is_not_said_stays() {
        assert_eq!(
            of(r#"{"memory":{"limit":-1},"cpu":{"quota":-1}}"#, true, 252),
            [property("MemoryMax", INFINITY), property("CPUQuotaPerSecUSec", INFINITY)]
        );
        assert_eq!(of(r#"{"cpu":{"shares":0,"cpus":""}}"#, true, 252), []);
        assert_eq!(
            of(r#"{"cpu":{"quota":9223372036854775807,"period":1}}"#, true, 252).len(),
            2,
            "as much as fits is no panic"
        );
    }

    #[test]
    fn sets_are_bits() {
        assert_eq!(bits("cpus", "0-7,16").ok(), Some(vec![0xff, 0, 1]));
        assert_eq!(bits("cpus", "3").ok(), Some(vec![8]));
        for wrong in ["", "a", "3-1", "-1", "0,", "99999999"] {
            assert!(bits("cpus", wrong).is_err(), "{wrong}");
        }
    }
}
