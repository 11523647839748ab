//! The properties of a unit: what makes it a container's, and the limits that systemd knows.
//!
//! The same limits are written to the group's files afterwards; systemd must know them, or it would put its own back.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxCpu, LinuxResources};
use zbus::Variant;

use super::super::host_cgroup::{io_weight, memory_limit, tasks, weight};
use super::Unit;
use crate::{Error, ErrorKind};

pub(in super::super) type Property = (String, Variant<'static>);

const ANNOTATION: &str = "org.systemd.property.";
/// systemd's `infinity`.
const INFINITY: u64 = u64::MAX;
/// The highest CPU or memory node plus one that a set may name.
const MAX_SET: usize = 1 << 16;

fn property(name: &str, value: impl Into<Variant<'static>>) -> Property {
    (name.to_owned(), value.into())
}

/// Those of a new unit, before more.
pub(super) fn of_unit(unit: &Unit, pid: i32, more: Vec<Property>) -> Vec<Property> {
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
    all.extend(more);
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
    if let Some(limit) = tasks(resources) {
        all.push(property("TasksMax", limit));
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

/// Those that annotations ask for, such as `org.systemd.property.CollectMode` with the value `'inactive-or-failed'`.
pub(in super::super) fn of_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Error> {
    let asked = annotations.iter().filter_map(|(key, text)| Some((key, key.strip_prefix(ANNOTATION)?, text)));
    asked
        .map(|(key, name, text)| {
            let named = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
            let found = Some(name).filter(|_| named).and_then(|name| of_annotation(name, text.trim()));
            found.ok_or_else(|| {
                let text =
                    format!("the annotation {key} is {text:?}: give a property of systemd's, as busctl would print it");
                Error::new(ErrorKind::Invalid, text)
            })
        })
        .collect()
}

fn of_annotation(name: &str, text: &str) -> Option<Property> {
    // Seconds are for people: the property counts microseconds.
    let seconds = name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = seconds else { return Some((name.to_owned(), value(text)?)) };
    let number = text.rsplit_once(' ').map_or(text, |(_, number)| number);
    let micros = match number.parse::<u64>() {
        Ok(seconds) => seconds.checked_mul(1_000_000)?,
        Err(_) => {
            let span = std::time::Duration::try_from_secs_f64(number.parse().ok()?).ok()?;
            u64::try_from(span.as_micros()).ok()?
        }
    };
    Some(property(&format!("{stem}USec"), micros))
}

/// A value in GVariant's text format, as far as properties of units go: booleans, numbers, strings and lists of strings.
fn value(text: &str) -> Option<Variant<'static>> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let (mut items, mut rest) = (Vec::new(), inner.trim());
        while !rest.is_empty() {
            let (item, tail) = quoted(rest)?;
            items.push(item);
            let tail = tail.trim_start();
            rest = if tail.is_empty() { tail } else { tail.strip_prefix(',')?.trim_start() };
        }
        return Some(items.into());
    }
    if text.starts_with(['\'', '"']) {
        return quoted(text).filter(|(_, rest)| rest.is_empty()).map(|(item, _)| item.into());
    }
    Some(match text.split_once(' ').map(|(kind, number)| (kind, number.trim())) {
        Some(("byte", number)) => number.parse::<u8>().ok()?.into(),
        Some(("int16", number)) => number.parse::<i16>().ok()?.into(),
        Some(("uint16", number)) => number.parse::<u16>().ok()?.into(),
        Some(("int32", number)) => number.parse::<i32>().ok()?.into(),
        Some(("uint32", number)) => number.parse::<u32>().ok()?.into(),
        Some(("int64", number)) => number.parse::<i64>().ok()?.into(),
        Some(("uint64", number)) => number.parse::<u64>().ok()?.into(),
        Some(("double", number)) => number.parse::<f64>().ok()?.into(),
        Some(("string", item)) => return value(item).filter(|found| matches!(found, Variant::Str(_))),
        Some(("boolean", word)) => word.parse::<bool>().ok()?.into(),
        Some(_) => return None,
        None => text.parse::<bool>().map(Variant::from).or_else(|_| text.parse::<i32>().map(Variant::from)).ok()?,
    })
}

/// A string in quotes at the head, and what comes after it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut characters = text.char_indices();
    let (_, quote) = characters.next().filter(|(_, c)| matches!(c, '\'' | '"'))?;
    let mut item = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => item.push(characters.next()?.1),
            c if c == quote => return Some((item, text.get(at + 1..)?)),
            c => item.push(c),
        }
    }
    None
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

    #[test]
    fn annotations_are_properties() {
        let of = |name: &str, text: &str| {
            let annotations = [(format!("org.systemd.property.{name}"), text.to_owned()), ("other".into(), "[".into())];
            of_annotations(&annotations.into())
        };
        for (name, text, expected) in [
            ("CollectMode", "'inactive-or-failed'", property("CollectMode", "inactive-or-failed")),
            ("KillSignal", "37", property("KillSignal", 37_i32)),
            ("TimeoutStopUSec", "uint64 5", property("TimeoutStopUSec", 5_u64)),
            ("TimeoutStopSec", "uint64 5", property("TimeoutStopUSec", 5_000_000_u64)),
            ("TimeoutStopSec", "1.5", property("TimeoutStopUSec", 1_500_000_u64)),
            ("SendSIGHUP", "true", property("SendSIGHUP", true)),
            ("Description", "\"it's\"", property("Description", "it's")),
            ("After", "['a.service', \"b\\\"\"]", property("After", vec!["a.service", "b\""])),
            ("After", "[]", property("After", Vec::<String>::new())),
        ] {
            assert_eq!(of(name, text).expect(text), [expected]);
        }
        for (name, text) in [
            ("KillSignal", ""),
            ("KillSignal", "uint8 5"),
            ("KillSignal", "99999999999"),
            ("After", "['a'"),
            ("After", "['a' 'b']"),
            ("CollectMode", "'a' 'b'"),
            ("CollectMode", "'a"),
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "18446744073709551615"),
            ("a.b", "true"),
            ("", "true"),
        ] {
            assert_eq!(of(name, text).expect_err(text).kind(), ErrorKind::Invalid, "{name}={text}");
        }
    }
}
