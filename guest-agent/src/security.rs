//! What a process may do: capabilities, resource limits, no_new_privs and its OOM score (OCI `process`).
//!
//! Reading the specification happens in the agent. The rest runs in the child, in this order: [`CapabilitySets::drop_bounding`]
//! and [`Rlimits::apply`] while it is still privileged, [`set_keep_caps`], setuid(2), [`CapabilitySets::apply`],
//! [`set_no_new_privs`]; none of it allocates but [`set_oom_score_adj`].

use std::fs;

use dewar_protocol::CAPABILITIES;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};
use rustix::{
    io::{self, Errno},
    process::{Pid, Resource, Rlimit},
    thread::{self, CapabilitySet},
};

use crate::container::reading::Capabilities;

/// What the specification asks that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("Resource limit {name} is given twice")]
    DuplicateRlimit { name: &'static str },
    #[error("The soft limit {soft} of {name} is above its hard limit {hard}")]
    RlimitOrder { name: &'static str, soft: u64, hard: u64 },
    #[error("Setting resource limit {name}")]
    Rlimit { name: &'static str, source: Errno },
    #[error("An OOM score adjustment must be in -1000..=1000, and {value} is not")]
    OomScoreRange { value: i32 },
    #[error("Setting the OOM score adjustment to {value}")]
    OomScore { value: i32, source: std::io::Error },
}

/// The five capability sets (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
    known: CapabilitySet,
}

impl CapabilitySets {
    /// Reads the specification; `None` is no capability at all. Also returns a sentence for each capability that is left
    /// out: one that nobody or this kernel does not know, or an ambient one that is not permitted and inheritable as well.
    pub fn from_spec(spec: Option<&Capabilities>) -> (Self, Vec<String>) {
        Self::with_known(spec, known_to_kernel())
    }

    fn with_known(spec: Option<&Capabilities>, known: CapabilitySet) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut wanted = |set: fn(&Capabilities) -> &Option<Vec<String>>| {
            let names = spec.and_then(|spec| set(spec).as_deref()).unwrap_or_default();
            let number = |name: &String| match number(name) {
                Some(number) => Some(CapabilitySet::from_bits_retain(1 << number)),
                None => {
                    warnings.push(format!("Capability {name:?} is unknown and ignored"));
                    None
                }
            };
            names.iter().filter_map(number).collect::<CapabilitySet>()
        };
        let asked = Self {
            bounding: wanted(|spec| &spec.bounding),
            effective: wanted(|spec| &spec.effective),
            permitted: wanted(|spec| &spec.permitted),
            inheritable: wanted(|spec| &spec.inheritable),
            ambient: wanted(|spec| &spec.ambient),
            known,
        };
        let all = asked.bounding | asked.effective | asked.permitted | asked.inheritable | asked.ambient;
        warnings.extend(
            single(all - known).map(|set| format!("Capability {} is unknown to this kernel and ignored", name(set))),
        );
        let raisable = asked.permitted & asked.inheritable;
        warnings.extend(single((asked.ambient & known) - raisable).map(|set| {
            format!("Capability {} cannot be ambient without being permitted and inheritable: ignored", name(set))
        }));
        let sets = Self {
            bounding: asked.bounding & known,
            effective: asked.effective & known,
            permitted: asked.permitted & known,
            inheritable: asked.inheritable & known,
            ambient: asked.ambient & known & raisable,
            known,
        };
        (sets, warnings)
    }

    /// Drops from the bounding set what is not in ours. Needs CAP_SETPCAP: before setuid(2).
    ///
    /// # Errors
    /// The kernel's.
    pub fn drop_bounding(&self) -> io::Result<()> {
        single(self.known - self.bounding).try_for_each(thread::remove_capability_from_bounding_set)
    }

    /// Sets the other sets, after setuid(2) with [`set_keep_caps`] before it.
    ///
    /// # Errors
    /// The kernel's: EPERM for what the process does not have to give.
    pub fn apply(&self) -> io::Result<()> {
        thread::clear_ambient_capability_set()?;
        thread::set_capabilities(
            None,
            thread::CapabilitySets {
                effective: self.effective,
                permitted: self.permitted,
                inheritable: self.inheritable,
            },
        )?;
        single(self.ambient).try_for_each(|set| thread::configure_capability_in_ambient_set(set, true))
    }
}

/// The number of a capability by its name, with or without `CAP_`, in letters of either kind.
fn number(name: &str) -> Option<u32> {
    let prefix = name.get(..4).filter(|start| start.eq_ignore_ascii_case("CAP_"));
    let bare = prefix.and_then(|_| name.get(4..)).unwrap_or(name);
    (0u32..).zip(CAPABILITIES).find(|(_, known)| known.eq_ignore_ascii_case(bare)).map(|(number, _)| number)
}

/// Every member as a set of one.
fn single(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)).filter(move |one| set.contains(*one))
}

fn known_to_kernel() -> CapabilitySet {
    let all = CapabilitySet::from_bits_retain(u64::MAX);
    single(all).take_while(|one| thread::capability_is_in_bounding_set(*one).is_ok()).collect()
}

fn name(set: CapabilitySet) -> String {
    let number = set.bits().trailing_zeros();
    let name = usize::try_from(number).ok().and_then(|number| CAPABILITIES.get(number));
    name.map_or_else(|| format!("number {number}"), |name| format!("CAP_{name}"))
}

/// Keeps permitted capabilities over setuid(2).
///
/// # Errors
/// The kernel's.
pub fn set_keep_caps(keep: bool) -> io::Result<()> {
    thread::set_keep_capabilities(keep)
}

/// Resource limits, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rlimits {
    limits: Vec<(&'static str, Resource, Rlimit)>,
}

impl Rlimits {
    /// Reads the specification.
    ///
    /// # Errors
    /// [`SecurityError::DuplicateRlimit`] and [`SecurityError::RlimitOrder`].
    pub fn from_spec(spec: Option<&[PosixRlimit]>) -> Result<Self, SecurityError> {
        let mut limits: Vec<(&'static str, Resource, Rlimit)> = Vec::new();
        for rlimit in spec.unwrap_or_default() {
            let (name, resource) = resource(rlimit.typ());
            let (soft, hard) = (rlimit.soft(), rlimit.hard());
            if limits.iter().any(|(other, _, _)| *other == name) {
                return Err(SecurityError::DuplicateRlimit { name });
            }
            if soft > hard {
                return Err(SecurityError::RlimitOrder { name, soft, hard });
            }
            limits.push((name, resource, Rlimit { current: finite(soft), maximum: finite(hard) }));
        }
        Ok(Self { limits })
    }

    /// Raises a process's hard limits where these are higher, and nothing else: in a user namespace it could not do so
    /// itself. `process`: `None` is the calling one; another still has this one's limits, from its birth.
    ///
    /// # Errors
    /// [`SecurityError::Rlimit`].
    pub fn make_room(&self, process: Option<Pid>) -> Result<(), SecurityError> {
        self.limits.iter().try_for_each(|(name, resource, wanted)| {
            let had = rustix::process::getrlimit(*resource);
            let maximum = wanted.maximum.zip(had.maximum).map(|(wanted, had)| wanted.max(had));
            let raised = Rlimit { current: had.current, maximum };
            let done = rustix::process::prlimit(process, *resource, raised);
            done.map(drop).map_err(|source| SecurityError::Rlimit { name, source })
        })
    }

    /// Sets the limits of the calling process. Raising a hard limit needs CAP_SYS_RESOURCE.
    ///
    /// # Errors
    /// [`SecurityError::Rlimit`].
    pub fn apply(&self) -> Result<(), SecurityError> {
        self.limits.iter().try_for_each(|(name, resource, limit)| {
            rustix::process::setrlimit(*resource, *limit).map_err(|source| SecurityError::Rlimit { name, source })
        })
    }
}

fn finite(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn resource(kind: PosixRlimitType) -> (&'static str, Resource) {
    match kind {
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", Resource::Cpu),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", Resource::Fsize),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", Resource::Data),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", Resource::Stack),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", Resource::Core),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", Resource::Rss),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", Resource::Nproc),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", Resource::Nofile),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", Resource::Memlock),
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", Resource::As),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", Resource::Locks),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", Resource::Sigpending),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", Resource::Nice),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", Resource::Rtprio),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", Resource::Rttime),
    }
}

/// Execve(2) grants nothing from now on.
///
/// # Errors
/// The kernel's.
pub fn set_no_new_privs() -> io::Result<()> {
    thread::set_no_new_privs(true)
}

/// Adjusts how soon the OOM killer takes the calling process, in the procfs at `/proc`.
///
/// # Errors
/// [`SecurityError::OomScoreRange`] and [`SecurityError::OomScore`].
pub fn set_oom_score_adj(value: i32) -> Result<(), SecurityError> {
    if !(-1000..=1000).contains(&value) {
        return Err(SecurityError::OomScoreRange { value });
    }
    fs::write("/proc/self/oom_score_adj", value.to_string()).map_err(|source| SecurityError::OomScore { value, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Capabilities {
        serde_json::from_str(json).expect("parses")
    }

    #[test]
    fn the_table_is_complete_and_in_order() {
        assert!((0u32..).zip(CAPABILITIES).all(|(index, name)| number(name) == Some(index)));
        assert_eq!(name(CapabilitySet::SYS_ADMIN), "CAP_SYS_ADMIN");
        assert_eq!(name(CapabilitySet::CHECKPOINT_RESTORE), "CAP_CHECKPOINT_RESTORE");
    }

    #[test]
    fn sets_are_read() {
        let spec = spec(
            r#"{"bounding":["CAP_CHOWN","CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],
               "inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}"#,
        );
        let (sets, warnings) = CapabilitySets::with_known(Some(&spec), CapabilitySet::all());
        assert_eq!(sets.bounding, CapabilitySet::CHOWN | CapabilitySet::KILL);
        for set in [sets.effective, sets.permitted, sets.inheritable, sets.ambient] {
            assert_eq!(set, CapabilitySet::KILL);
        }
        assert!(warnings.is_empty());
    }

    #[test]
    fn names_are_read_with_and_without_their_prefix_and_unknown_ones_left_out() {
        assert_eq!((number("CAP_KILL"), number("kill"), number("cap_Bpf")), (Some(5), Some(5), Some(39)));
        assert_eq!(
            (number("CAP_"), number(""), number("CAP_OF_TOMORROW"), number("CÄP_KILL")),
            (None, None, None, None)
        );
        let spec = spec(r#"{"bounding":["CAP_KILL","CAP_OF_TOMORROW"],"effective":["CAP_NOTHING"]}"#);
        let (sets, warnings) = CapabilitySets::with_known(Some(&spec), CapabilitySet::all());
        assert_eq!((sets.bounding, sets.effective), (CapabilitySet::KILL, CapabilitySet::empty()));
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn no_capabilities_section_is_no_capability() {
        let (sets, warnings) = CapabilitySets::with_known(None, CapabilitySet::all());
        assert!(sets.bounding.is_empty() && sets.permitted.is_empty());
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_the_kernel_does_not_know_is_left_out_with_one_warning() {
        let spec = spec(r#"{"bounding":["CAP_BPF","CAP_CHOWN"],"permitted":["CAP_BPF"]}"#);
        let known = CapabilitySet::all() - CapabilitySet::BPF;
        let (sets, warnings) = CapabilitySets::with_known(Some(&spec), known);
        assert_eq!(sets.bounding, CapabilitySet::CHOWN);
        assert!(sets.permitted.is_empty());
        assert_eq!(warnings, ["Capability CAP_BPF is unknown to this kernel and ignored"]);
    }

    #[test]
    fn an_ambient_capability_must_be_permitted_and_inheritable() {
        let spec = spec(r#"{"permitted":["CAP_KILL"],"ambient":["CAP_KILL"]}"#);
        let (sets, warnings) = CapabilitySets::with_known(Some(&spec), CapabilitySet::all());
        assert!(sets.ambient.is_empty());
        assert_eq!(warnings.len(), 1);
    }

    fn rlimits(json: &str) -> Result<Rlimits, SecurityError> {
        let spec: Vec<PosixRlimit> = serde_json::from_str(json).expect("parses");
        Rlimits::from_spec(Some(&spec))
    }

    #[test]
    fn limits_are_read_and_the_largest_value_is_no_limit() {
        let limits =
            rlimits(r#"[{"type":"RLIMIT_NOFILE","soft":10,"hard":18446744073709551615}]"#).expect("reads").limits;
        assert_eq!(limits, [("RLIMIT_NOFILE", Resource::Nofile, Rlimit { current: Some(10), maximum: None })]);
    }

    #[test]
    fn limits_that_contradict_are_refused() {
        let twice = r#"[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":1,"hard":1}]"#;
        assert!(matches!(rlimits(twice), Err(SecurityError::DuplicateRlimit { name: "RLIMIT_CPU" })));
        let order = r#"[{"type":"RLIMIT_CPU","soft":2,"hard":1}]"#;
        assert!(matches!(rlimits(order), Err(SecurityError::RlimitOrder { soft: 2, hard: 1, .. })));
    }

    #[test]
    fn limits_are_set() {
        let before = rustix::process::getrlimit(Resource::Core);
        let hard = before.maximum.unwrap_or(u64::MAX);
        let json = format!(r#"[{{"type":"RLIMIT_CORE","soft":0,"hard":{hard}}}]"#);
        rlimits(&json).expect("reads").apply().expect("sets");
        assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
    }

    #[test]
    fn an_oom_score_outside_the_range_is_refused() {
        assert!(matches!(set_oom_score_adj(1001), Err(SecurityError::OomScoreRange { value: 1001 })));
    }
}
