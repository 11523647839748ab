//! Which namespaces a container has: its own, those of another container of the sandbox, or the sandbox's.
//!
//! A type that the specification does not name is the sandbox's: what all its containers see that do not have their own.
//! That is the guest's own namespace, except for PIDs: there the sandbox has one that the agent is not in
//! ([`super::sandbox`]). A path in the specification is one of the host, and means nothing here: the host says by
//! [`Join`] whose namespace it is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dewar_protocol::Join;
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use crate::error::{Doing, Failure, Result};

/// Whose namespace a container is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Whose {
    #[default]
    Sandbox,
    Own,
    /// Another container's.
    Joined,
}

/// The namespaces of a container; the mount namespace is always its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub pid: Whose,
    pub network: Whose,
    pub ipc: Whose,
    pub uts: Whose,
    pub cgroup: Whose,
    pub user: Whose,
    pub time: Whose,
    /// Lines of `uid_map`, `gid_map` and `timens_offsets`.
    pub uid_map: String,
    pub gid_map: String,
    pub time_offsets: String,
    /// The user and group outside that are root inside, where the maps change ids.
    pub shifted_root: Option<(u32, u32)>,
}

/// The types: name in the specification, CLONE_NEW* flag, name in `/proc/PID/ns`.
pub const KINDS: [(LinuxNamespaceType, &str, libc::c_int, &str); 8] = [
    (LinuxNamespaceType::Pid, "pid", libc::CLONE_NEWPID, "pid"),
    (LinuxNamespaceType::Network, "network", libc::CLONE_NEWNET, "net"),
    (LinuxNamespaceType::Ipc, "ipc", libc::CLONE_NEWIPC, "ipc"),
    (LinuxNamespaceType::Uts, "uts", libc::CLONE_NEWUTS, "uts"),
    (LinuxNamespaceType::Cgroup, "cgroup", libc::CLONE_NEWCGROUP, "cgroup"),
    (LinuxNamespaceType::Time, "time", libc::CLONE_NEWTIME, "time"),
    (LinuxNamespaceType::User, "user", libc::CLONE_NEWUSER, "user"),
    (LinuxNamespaceType::Mount, "mount", libc::CLONE_NEWNS, "mnt"),
];

impl Namespaces {
    /// Reads the specification and what the host says about its paths.
    pub fn from_spec(linux: &Linux, joins: &[Join]) -> Result<Self> {
        let mut namespaces = Self::default();
        let mut mount = Whose::Sandbox;
        for namespace in linux.namespaces().iter().flatten() {
            let (_, name, ..) = kind_of(|kind| *kind == namespace.typ())?;
            let joined = joins.iter().any(|join| join.namespace == name);
            let whose = match namespace.path() {
                _ if joined => Whose::Joined,
                None => Whose::Own,
                Some(path) if path.as_os_str().is_empty() => Whose::Own,
                Some(path) => {
                    return Err(Failure::unsupported(format!(
                        "The {name} namespace {} is not of this sandbox and cannot be joined",
                        path.display()
                    )));
                }
            };
            let place = namespaces.place(namespace.typ()).unwrap_or(&mut mount);
            if std::mem::replace(place, whose) != Whose::Sandbox {
                return Err(Failure::invalid(format!("The specification names the {name} namespace twice")));
            }
        }
        for join in joins {
            let (kind, ..) = kind_of_name(&join.namespace)?;
            *namespaces.place(kind).unwrap_or(&mut mount) = Whose::Joined;
        }
        match mount {
            Whose::Own => {}
            Whose::Sandbox => {
                return Err(Failure::unsupported("A container without a mount namespace is not supported"));
            }
            Whose::Joined => {
                let refused = "A container that joins the mount namespace of another one is not supported";
                return Err(Failure::unsupported(refused));
            }
        }
        namespaces.read_maps(linux)?;
        namespaces.read_offsets(linux)?;
        Ok(namespaces)
    }

    /// Where the owner of a type is kept; `None` for the mount namespace.
    fn place(&mut self, kind: LinuxNamespaceType) -> Option<&mut Whose> {
        Some(match kind {
            LinuxNamespaceType::Mount => return None,
            LinuxNamespaceType::Pid => &mut self.pid,
            LinuxNamespaceType::Network => &mut self.network,
            LinuxNamespaceType::Ipc => &mut self.ipc,
            LinuxNamespaceType::Uts => &mut self.uts,
            LinuxNamespaceType::Cgroup => &mut self.cgroup,
            LinuxNamespaceType::User => &mut self.user,
            LinuxNamespaceType::Time => &mut self.time,
        })
    }

    /// A user and a group of the container as the guest knows them, where that can be told.
    pub fn outside(&self, user: u32, group: u32) -> Option<(u32, u32)> {
        match self.user {
            Whose::Sandbox => Some((user, group)),
            Whose::Own => Some((map(&self.uid_map, user)?, map(&self.gid_map, group)?)),
            Whose::Joined => None,
        }
    }

    fn read_maps(&mut self, linux: &Linux) -> Result<()> {
        match self.user {
            Whose::Own => {
                let users = IdMap::from_spec(linux.uid_mappings().as_deref())?;
                let groups = IdMap::from_spec(linux.gid_mappings().as_deref())?;
                if users.shifts || groups.shifts {
                    self.shifted_root = Some((users.root, groups.root));
                }
                self.uid_map = users.lines;
                self.gid_map = groups.lines;
                Ok(())
            }
            // Those of the namespace are in force.
            Whose::Joined => Ok(()),
            Whose::Sandbox => {
                let mappings = [linux.uid_mappings(), linux.gid_mappings()];
                if mappings.into_iter().flatten().any(|mappings| !mappings.is_empty()) {
                    return Err(Failure::invalid("Id mappings need a user namespace"));
                }
                Ok(())
            }
        }
    }

    fn read_offsets(&mut self, linux: &Linux) -> Result<()> {
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            if self.time != Whose::Own || !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Failure::invalid(format!("A time offset of {clock:?} cannot be set")));
            }
            let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
            self.time_offsets.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
        }
        Ok(())
    }

    /// The namespaces that clone3 makes (CLONE_NEW*). The cgroup one is made inside the container's cgroup, the time one
    /// before the fork.
    pub fn born_with(&self) -> libc::c_int {
        self.with(|whose| whose == Whose::Own) & !(libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME)
    }

    /// All that differ from the agent's (CLONE_NEW*): those that a further process enters.
    pub fn flags(&self) -> libc::c_int {
        self.with(|whose| whose != Whose::Sandbox) | libc::CLONE_NEWPID
    }

    fn with(&self, wanted: impl Fn(Whose) -> bool) -> libc::c_int {
        let optional = [
            (self.pid, libc::CLONE_NEWPID),
            (self.network, libc::CLONE_NEWNET),
            (self.ipc, libc::CLONE_NEWIPC),
            (self.uts, libc::CLONE_NEWUTS),
            (self.cgroup, libc::CLONE_NEWCGROUP),
            (self.user, libc::CLONE_NEWUSER),
            (self.time, libc::CLONE_NEWTIME),
        ];
        optional.iter().filter(|(whose, _)| wanted(*whose)).fold(libc::CLONE_NEWNS, |flags, (_, flag)| flags | flag)
    }
}

type Kind = (LinuxNamespaceType, &'static str, libc::c_int, &'static str);

fn kind_of(wanted: impl Fn(&LinuxNamespaceType) -> bool) -> Result<Kind> {
    KINDS.into_iter().find(|(kind, ..)| wanted(kind)).ok_or_else(|| Failure::invalid("An unknown type of namespace"))
}

/// The type by its name in the specification.
pub fn kind_of_name(name: &str) -> Result<Kind> {
    KINDS
        .into_iter()
        .find(|(_, known, ..)| *known == name)
        .ok_or_else(|| Failure::invalid(format!("{name:?} is no type of namespace")))
}

/// A namespace to enter.
#[derive(Debug)]
pub struct Joined {
    /// CLONE_NEW*.
    pub flag: libc::c_int,
    pub fd: OwnedFd,
}

/// The namespaces of a container, held open for as long as it exists, so that others can join them.
#[derive(Debug, Default)]
pub struct Pins {
    /// By CLONE_NEW*.
    namespaces: Vec<(libc::c_int, OwnedFd)>,
}

impl Pins {
    /// Opens those of a process that has all of them.
    pub fn of(pid: rustix::process::Pid) -> Result<Self> {
        let pid = pid.as_raw_nonzero();
        let open = |(_, name, flag, file): Kind| {
            let opened = std::fs::File::open(format!("/proc/{pid}/ns/{file}"));
            opened.doing(|| format!("Holding the {name} namespace failed")).map(|file| (flag, file.into()))
        };
        Ok(Self { namespaces: KINDS.into_iter().map(open).collect::<Result<_>>()? })
    }

    pub fn get(&self, flag: libc::c_int) -> Option<BorrowedFd<'_>> {
        self.namespaces.iter().find(|(of, _)| *of == flag).map(|(_, fd)| fd.as_fd())
    }
}

struct IdMap {
    lines: String,
    /// Which id outside is 0 inside.
    root: u32,
    shifts: bool,
}

/// Looks an id up in lines of `uid_map`.
fn map(lines: &str, id: u32) -> Option<u32> {
    lines.lines().find_map(|line| {
        let mut words = line.split(' ').map(str::parse::<u32>);
        let (inside, outside, size) = (words.next()?.ok()?, words.next()?.ok()?, words.next()?.ok()?);
        let offset = id.checked_sub(inside).filter(|offset| *offset < size)?;
        outside.checked_add(offset)
    })
}

impl IdMap {
    fn from_spec(mappings: Option<&[LinuxIdMapping]>) -> Result<Self> {
        let mappings = mappings.unwrap_or_default();
        let root = mappings.iter().find(|mapping| mapping.container_id() == 0 && mapping.size() > 0);
        let root = root.ok_or_else(|| Failure::invalid("A user namespace needs id mappings that include root"))?;
        Ok(Self {
            lines: mappings.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect(),
            root: root.host_id(),
            shifts: mappings.iter().any(|mapping| mapping.container_id() != mapping.host_id()),
        })
    }
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::*;

    fn read(linux: &str, joins: &[(&str, &str)]) -> std::result::Result<Namespaces, ErrorKind> {
        let linux: Linux = serde_json::from_str(linux).expect("parses");
        let joins: Vec<Join> = joins
            .iter()
            .map(|(namespace, container)| Join {
                namespace: (*namespace).to_owned(),
                container: (*container).to_owned(),
            })
            .collect();
        Namespaces::from_spec(&linux, &joins).map_err(|failure| failure.kind)
    }

    #[test]
    fn own_joined_and_the_sandbox_s() {
        let linux = r#"{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts","path":"/proc/1/ns/uts"},
            {"type":"network"}]}"#;
        let namespaces = read(linux, &[("uts", "infra"), ("ipc", "infra")]).expect("valid");
        assert_eq!((namespaces.pid, namespaces.uts, namespaces.ipc), (Whose::Own, Whose::Joined, Whose::Joined));
        assert_eq!((namespaces.network, namespaces.user), (Whose::Own, Whose::Sandbox));
        let own = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
        assert_eq!(namespaces.born_with(), own);
        assert_eq!(namespaces.flags(), own | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC);
    }

    #[test]
    fn what_cannot_be_joined_is_refused() {
        let path = r#"{"namespaces":[{"type":"mount"},{"type":"network","path":"/run/netns/x"}]}"#;
        assert_eq!(read(path, &[]), Err(ErrorKind::Unsupported));
        let failure = Namespaces::from_spec(&serde_json::from_str(path).expect("parses"), &[]).expect_err("refused");
        assert_eq!(
            failure.sentence(),
            "The network namespace /run/netns/x is not of this sandbox and cannot be joined"
        );
        assert_eq!(read(r#"{"namespaces":[{"type":"mount"}]}"#, &[("odd", "x")]), Err(ErrorKind::Invalid));
        assert_eq!(read(r#"{"namespaces":[{"type":"mount"}]}"#, &[("mount", "x")]), Err(ErrorKind::Unsupported));
        assert_eq!(read(r#"{"namespaces":[{"type":"uts"}]}"#, &[]), Err(ErrorKind::Unsupported));
        let twice = r#"{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"uts"}]}"#;
        assert_eq!(read(twice, &[]), Err(ErrorKind::Invalid));
    }

    #[test]
    fn maps_that_shift_ids_are_told_from_those_that_do_not() {
        let mapped = |host: u32| {
            let map = format!(r#"[{{"containerID":0,"hostID":{host},"size":65536}}]"#);
            let namespaces = r#"[{"type":"mount"},{"type":"user"}]"#;
            read(&format!(r#"{{"namespaces":{namespaces},"uidMappings":{map},"gidMappings":{map}}}"#), &[])
        };
        assert_eq!(mapped(0).expect("valid").shifted_root, None);
        assert_eq!(mapped(100_000).expect("valid").shifted_root, Some((100_000, 100_000)));
        assert_eq!(mapped(100_000).expect("valid").uid_map, "0 100000 65536\n");
        assert_eq!(mapped(100_000).expect("valid").outside(10, 65536), None);
        assert_eq!(mapped(100_000).expect("valid").outside(10, 11), Some((100_010, 100_011)));
        assert_eq!(read(r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#, &[]), Err(ErrorKind::Invalid));
        let unused = r#"{"namespaces":[{"type":"mount"}],"uidMappings":[{"containerID":0,"hostID":5,"size":1}]}"#;
        assert_eq!(read(unused, &[]), Err(ErrorKind::Invalid));
    }

    #[test]
    fn clocks_are_set_in_a_time_namespace_only() {
        let offsets = r#""timeOffsets":{"boottime":{"secs":-5,"nanosecs":7}}"#;
        let own = read(&format!(r#"{{"namespaces":[{{"type":"mount"}},{{"type":"time"}}],{offsets}}}"#), &[]);
        assert_eq!(own.expect("valid").time_offsets, "boottime -5 7\n");
        assert_eq!(read(&format!(r#"{{"namespaces":[{{"type":"mount"}}],{offsets}}}"#), &[]), Err(ErrorKind::Invalid));
        let odd = r#"{"namespaces":[{"type":"mount"},{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}}"#;
        assert_eq!(read(odd, &[]), Err(ErrorKind::Invalid));
    }

    #[test]
    fn this_process_s_namespaces_are_held() {
        let pins = Pins::of(rustix::process::getpid()).expect("opens");
        assert!(KINDS.iter().all(|(_, _, flag, _)| pins.get(*flag).is_some()));
    }
}
