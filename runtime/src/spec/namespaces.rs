//! User and time namespaces, which a container has only when they are asked for. Id mappings are in podman's notation;
//! "host" is the machine, whose ids no other container uses.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxTimeOffset};

use super::SpecError;

/// Where `auto` lays root of the container, and how many ids it takes, among those of the machine.
const AUTO_FIRST: u32 = 100_000;
const AUTO_SIZE: u32 = 65_536;
/// Lines that the kernel takes (user_namespaces(7)).
const MAPPINGS_MOST: usize = 340;

/// Which ids of the container are which of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMaps {
    pub users: Vec<IdRange>,
    pub groups: Vec<IdRange>,
}

/// `size` ids from `container` on are those from `machine` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    pub container: u32,
    pub machine: u32,
    pub size: u32,
}

/// The value of `--userns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserNamespace {
    /// No namespace of its own.
    Host,
    /// This many ids, none of which is one of the machine's own.
    Auto { size: u32 },
}

/// A clock of a time namespace, by its OCI name, and the seconds that it is ahead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeOffset {
    pub clock: &'static str,
    pub seconds: i64,
}

/// `host`, `auto` or `auto:size=N`.
///
/// # Errors
/// [`SpecError::UserNamespace`].
pub fn user_namespace(text: &str) -> Result<UserNamespace, SpecError> {
    let fail = || SpecError::UserNamespace { text: text.to_owned() };
    match text.split_once(':') {
        None if matches!(text, "" | "host") => Ok(UserNamespace::Host),
        None if text == "auto" => Ok(UserNamespace::Auto { size: AUTO_SIZE }),
        Some(("auto", option)) => {
            let size = option.strip_prefix("size=").and_then(number).ok_or_else(fail)?;
            let fits = size > 0 && AUTO_FIRST.checked_add(size).is_some();
            if fits { Ok(UserNamespace::Auto { size }) } else { Err(fail()) }
        }
        _ => Err(fail()),
    }
}

/// `CONTAINER:MACHINE:SIZE`, or without the size for one id.
///
/// # Errors
/// [`SpecError::IdMap`].
pub fn id_map(text: &str) -> Result<IdRange, SpecError> {
    let fail = || SpecError::IdMap { text: text.to_owned() };
    let numbers: Vec<u32> = text.split(':').map(number).collect::<Option<_>>().ok_or_else(fail)?;
    let (container, machine, size) = match numbers[..] {
        [container, machine] => (container, machine, 1),
        [container, machine, size] => (container, machine, size),
        _ => return Err(fail()),
    };
    let whole = container.checked_add(size).is_some() && machine.checked_add(size).is_some();
    if size > 0 && whole { Ok(IdRange { container, machine, size }) } else { Err(fail()) }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `monotonic=SECONDS` or `boottime=SECONDS`.
///
/// # Errors
/// [`SpecError::TimeOffset`].
pub fn time_offset(text: &str) -> Result<TimeOffset, SpecError> {
    let fail = || SpecError::TimeOffset { text: text.to_owned() };
    let (name, seconds) = text.split_once('=').ok_or_else(fail)?;
    let clock = ["monotonic", "boottime"].into_iter().find(|clock| *clock == name).ok_or_else(fail)?;
    Ok(TimeOffset { clock, seconds: seconds.parse().map_err(|_| fail())? })
}

impl IdMaps {
    /// What `--userns`, `--uidmap` and `--gidmap` amount to: `None` without a user namespace. Maps that are given for
    /// users only, or for groups only, hold for both.
    ///
    /// # Errors
    /// [`SpecError`] for maps that contradict each other or leave root out.
    pub fn of(
        namespace: Option<UserNamespace>,
        users: &[IdRange],
        groups: &[IdRange],
    ) -> Result<Option<Self>, SpecError> {
        if users.is_empty() && groups.is_empty() {
            let Some(UserNamespace::Auto { size }) = namespace else { return Ok(None) };
            let all = vec![IdRange { container: 0, machine: AUTO_FIRST, size }];
            return Ok(Some(Self { users: all.clone(), groups: all }));
        }
        if namespace.is_some() {
            return Err(SpecError::IdMapsBesideUserNamespace);
        }
        let users = if users.is_empty() { groups } else { users };
        let groups = if groups.is_empty() { users } else { groups };
        for ranges in [users, groups] {
            check(ranges)?;
        }
        Ok(Some(Self { users: users.to_vec(), groups: groups.to_vec() }))
    }
}

fn check(ranges: &[IdRange]) -> Result<(), SpecError> {
    if ranges.len() > MAPPINGS_MOST {
        return Err(SpecError::IdMaps { what: "there are more than 340 of them" });
    }
    if !ranges.iter().any(|range| range.container == 0) {
        return Err(SpecError::IdMaps { what: "root of the container (id 0) has to be among them" });
    }
    let overlap = |a: u32, b: u32, first: &IdRange, second: &IdRange| {
        u64::from(a) < u64::from(b) + u64::from(second.size) && u64::from(b) < u64::from(a) + u64::from(first.size)
    };
    for (place, first) in ranges.iter().enumerate() {
        for second in &ranges[place + 1..] {
            if overlap(first.container, second.container, first, second)
                || overlap(first.machine, second.machine, first, second)
            {
                return Err(SpecError::IdMaps { what: "two of them overlap" });
            }
        }
    }
    Ok(())
}

/// As the specification has them.
pub(super) fn mappings(ranges: &[IdRange]) -> Vec<LinuxIdMapping> {
    let one = |range: &IdRange| {
        LinuxIdMappingBuilder::default()
            .container_id(range.container)
            .host_id(range.machine)
            .size(range.size)
            .build()
            .expect("all its fields have defaults and none is validated")
    };
    ranges.iter().map(one).collect()
}

/// As the specification has them; the last one for a clock wins.
pub(super) fn offsets(offsets: &[TimeOffset]) -> Option<std::collections::HashMap<String, LinuxTimeOffset>> {
    let one = |offset: &TimeOffset| {
        let mut value = LinuxTimeOffset::default();
        value.set_secs(Some(offset.seconds)).set_nanosecs(Some(0));
        (offset.clock.to_owned(), value)
    };
    (!offsets.is_empty()).then(|| offsets.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> IdRange {
        id_map(text).expect("parses")
    }

    #[test]
    fn notations() {
        assert_eq!(user_namespace("host").expect("known"), UserNamespace::Host);
        assert_eq!(user_namespace("auto").expect("known"), UserNamespace::Auto { size: 65_536 });
        assert_eq!(user_namespace("auto:size=10").expect("known"), UserNamespace::Auto { size: 10 });
        for text in ["keep-id", "auto:", "auto:size=0", "auto:size=4294967295", "auto:size=+1", "private"] {
            assert!(user_namespace(text).is_err(), "{text}");
        }
        assert_eq!(range("0:100:5"), IdRange { container: 0, machine: 100, size: 5 });
        assert_eq!(range("1:2").size, 1);
        for text in ["", "1", "1:2:3:4", "a:1:1", "1:1:0", "4294967295:0:1", "0:-1:1", "+1:1:1"] {
            assert!(id_map(text).is_err(), "{text}");
        }
        assert_eq!(time_offset("monotonic=-5").expect("parses"), TimeOffset { clock: "monotonic", seconds: -5 });
        for text in ["realtime=1", "boottime", "boottime=x", "boottime=1.5"] {
            assert!(time_offset(text).is_err(), "{text}");
        }
    }

    #[test]
    fn maps_for_one_kind_hold_for_both() {
        let users = [range("0:1000:10"), range("10:1:5")];
        let maps = IdMaps::of(None, &users, &[]).expect("valid").expect("a namespace");
        assert_eq!((maps.users.as_slice(), maps.groups.as_slice()), (&users[..], &users[..]));
        let groups = [range("0:5:1")];
        let maps = IdMaps::of(None, &users, &groups).expect("valid").expect("a namespace");
        assert_eq!((maps.users.len(), maps.groups.len()), (2, 1));
        assert_eq!(IdMaps::of(Some(UserNamespace::Host), &[], &[]).expect("valid"), None);
        let auto = IdMaps::of(Some(UserNamespace::Auto { size: 7 }), &[], &[]).expect("valid").expect("a namespace");
        assert_eq!(auto.groups, [range("0:100000:7")]);
    }

    #[test]
    fn maps_that_make_no_sense_are_refused() {
        for users in [vec!["1:1:1"], vec!["0:0:10", "5:100:1"], vec!["0:0:10", "20:9:1"]] {
            let users: Vec<IdRange> = users.into_iter().map(range).collect();
            assert!(IdMaps::of(None, &users, &[]).is_err(), "{users:?}");
        }
        assert!(IdMaps::of(None, &[range("0:0:1"); 341], &[]).is_err());
        assert!(IdMaps::of(Some(UserNamespace::Host), &[range("0:0:1")], &[]).is_err());
    }
}
