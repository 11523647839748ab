//! Mounts of the specification, read and checked in the agent (OCI runtime specification, "Mounts").

use std::path::{Component, Path, PathBuf};

use dewar_protocol::{NOTIFY_DIR, ROOT_DIR};
use oci_spec::runtime;

use super::{memory, shared};
use crate::error::{Failure, Result};

/// A mount that can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: Source,
    /// Absolute, in the container.
    pub target: PathBuf,
    pub change: Change,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A new instance of a filesystem of the guest's kernel. `name`: what the list of mounts shows as its source.
    /// `copy_up`: begins with what lies at the target.
    Filesystem { kind: &'static str, name: String, options: Vec<(String, Option<String>)>, copy_up: bool },
    /// One of the files that came with the container.
    File { number: usize },
    /// Memory that containers of the sandbox share, by its name and with the options of a tmpfs.
    Memory { name: String, options: String },
    /// A directory or file of the host, beneath the shared mount; `recursive`: with what is mounted there.
    Shared { path: PathBuf, recursive: bool },
    /// The folder of the container's notify socket.
    Notify,
    /// A directory or file of the container's own root filesystem, with what earlier mounts brought there.
    Root { path: PathBuf, recursive: bool },
}

/// Attributes of a mount to change, as in mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Of the mount itself.
    pub top: Attributes,
    /// Of the mount and all below it.
    pub tree: Attributes,
    /// MS_SHARED and the like, or 0.
    pub propagation: u64,
    pub propagation_recursive: bool,
}

/// Attributes to set and to clear (MOUNT_ATTR_*).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
}

/// Filesystems a container may ask for, and what the kernel calls them.
const FILESYSTEMS: [(&str, &str); 8] = [
    ("proc", "proc"),
    ("sysfs", "sysfs"),
    ("tmpfs", "tmpfs"),
    ("devpts", "devpts"),
    ("mqueue", "mqueue"),
    ("cgroup", "cgroup2"),
    ("cgroup2", "cgroup2"),
    ("ramfs", "ramfs"),
];

impl Mount {
    /// Reads one mount. `files`: the absolute paths of the files that came with the container.
    pub fn from_spec(mount: &runtime::Mount, files: &[PathBuf]) -> Result<Self> {
        let target = absolute(mount.destination())?;
        if !target.components().any(|part| matches!(part, Component::Normal(_))) {
            return Err(Failure::invalid("A mount over the root of the container is not possible"));
        }
        let mut change = Change::default();
        let mut rest = Vec::new();
        let mut bind = mount.typ().as_deref() == Some("bind");
        // As with mount(8), the type alone binds nothing below.
        let mut recursive = false;
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "bind" => bind = true,
                "rbind" => (bind, recursive) = (true, true),
                // The last two are about the kernel's log.
                "defaults" | "" | "silent" | "loud" => {}
                "idmap" | "ridmap" => return Err(id_mapped(&target)),
                "remount" => {
                    let refused = format!("The mount of {} cannot be one that changes another", target.display());
                    return Err(Failure::unsupported(refused));
                }
                other if change.apply(other) => {}
                other => rest.push(other),
            }
        }
        let mappings = [mount.uid_mappings(), mount.gid_mappings()];
        if mappings.into_iter().flatten().any(|mappings| !mappings.is_empty()) {
            return Err(id_mapped(&target));
        }
        let source = if bind {
            match bound(mount, recursive, files)? {
                source if rest.is_empty() => source,
                _ => return Err(unknown_option(&target, &rest)),
            }
        } else {
            filesystem(mount, &target, &rest)?
        };
        Ok(Self { source, target, change })
    }
}

fn id_mapped(target: &Path) -> Failure {
    Failure::unsupported(format!("The mount of {} has id mappings, which only bind mounts can have", target.display()))
}

fn unknown_option(target: &Path, options: &[&str]) -> Failure {
    let option = options.first().copied().unwrap_or_default();
    Failure::invalid(format!("The mount option {option:?} of {} is not one of a bind mount", target.display()))
}

impl Change {
    /// Applies a mount option that concerns the mount and not the filesystem; whether it is one.
    pub fn apply(&mut self, option: &str) -> bool {
        let plain = option.strip_prefix('r').filter(|rest| ATTRIBUTES.iter().any(|(name, ..)| name == rest));
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == plain.unwrap_or(option)) {
            let attributes = if plain.is_some() { &mut self.tree } else { &mut self.top };
            // The kernel refuses to set what it is also asked to clear; the last option counts.
            attributes.set = attributes.set & !clear | set;
            attributes.clear = attributes.clear & !set | clear;
            return true;
        }
        let Some((_, propagation, recursive)) = PROPAGATION.iter().find(|(name, ..)| *name == option) else {
            return false;
        };
        self.propagation = *propagation;
        self.propagation_recursive = *recursive;
        true
    }
}

const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    // An access time mode is a field of which all bits are cleared before one is set.
    ("relatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("atime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    // The kernel has no fourth mode: what is left is its default.
    ("norelatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
    ("nostrictatime", libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
];

const PROPAGATION: [(&str, u64, bool); 8] = [
    ("private", libc::MS_PRIVATE, false),
    ("rprivate", libc::MS_PRIVATE, true),
    ("slave", libc::MS_SLAVE, false),
    ("rslave", libc::MS_SLAVE, true),
    ("shared", libc::MS_SHARED, false),
    ("rshared", libc::MS_SHARED, true),
    ("unbindable", libc::MS_UNBINDABLE, false),
    ("runbindable", libc::MS_UNBINDABLE, true),
];

/// A path of the container: absolute (what the specification calls relative starts at the root), without null bytes.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let absolute = Path::new("/").join(path);
    if absolute.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(Failure::invalid("A path of the container holds a null byte"));
    }
    Ok(absolute)
}

/// What a bind mount shows: a file that came with the container, something that the host shares, or a part of the root.
fn bound(mount: &runtime::Mount, recursive: bool, files: &[PathBuf]) -> Result<Source> {
    let target = absolute(mount.destination())?;
    if let Some(number) = files.iter().position(|path| *path == target) {
        return Ok(Source::File { number });
    }
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    if let Ok(path) = source.strip_prefix(ROOT_DIR) {
        return Ok(Source::Root { path: absolute(path)?, recursive });
    }
    if source == Path::new(NOTIFY_DIR) {
        return Ok(Source::Notify);
    }
    shared::beneath(source)?;
    Ok(Source::Shared { path: source.to_owned(), recursive })
}

fn filesystem(mount: &runtime::Mount, target: &Path, rest: &[&str]) -> Result<Source> {
    let asked = mount.typ().as_deref().unwrap_or_default();
    let (_, kind) = FILESYSTEMS.iter().find(|(name, _)| *name == asked).ok_or_else(|| {
        Failure::unsupported(format!("{} is of type {asked:?}, which is not supported", target.display()))
    })?;
    if *kind == "tmpfs"
        && let Some(name) = mount.source().as_deref().map(memory::name).transpose()?.flatten()
    {
        return Ok(Source::Memory { name, options: rest.join(",") });
    }
    let copy_up = rest.contains(&"tmpcopyup");
    if copy_up && *kind != "tmpfs" {
        return Err(Failure::invalid(format!("The mount option tmpcopyup of {} needs a tmpfs", target.display())));
    }
    let text = |value: &str| if value.contains('\0') { Err(null_byte(target)) } else { Ok(value.to_owned()) };
    let mut options = Vec::new();
    // devpts is always a new instance; the option is of older kernels.
    for option in rest.iter().filter(|option| !["newinstance", "tmpcopyup"].contains(option)) {
        options.push(match option.split_once('=') {
            Some((key, value)) => (text(key)?, Some(text(value)?)),
            None => (text(option)?, None),
        });
    }
    let name = text(mount.source().as_ref().and_then(|source| source.to_str()).unwrap_or(kind))?;
    Ok(Source::Filesystem { kind, name, options, copy_up })
}

fn null_byte(target: &Path) -> Failure {
    Failure::invalid(format!("An option of the mount of {} holds a null byte", target.display()))
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::*;

    fn mount(json: &str) -> Result<Mount> {
        Mount::from_spec(&serde_json::from_str(json).expect("parses"), &[PathBuf::from("/etc/hosts")])
    }

    #[test]
    fn options_of_the_mount_and_of_the_filesystem_are_told_apart() {
        let tmpfs = mount(
            r#"{"destination":"/dev/shm","type":"tmpfs","source":"shm",
                "options":["nosuid","noexec","nodev","mode=1777","size=65536k","ro","rw"]}"#,
        )
        .expect("valid");
        let options = vec![("mode".into(), Some("1777".into())), ("size".into(), Some("65536k".into()))];
        assert_eq!(tmpfs.source, Source::Filesystem { kind: "tmpfs", name: "shm".into(), options, copy_up: false });
        assert_eq!(tmpfs.change.top.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NODEV);
        assert_eq!(tmpfs.change.top.clear, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn memory_that_is_shared_is_told_from_a_tmpfs_of_one_s_own() {
        let of = |source: &str| {
            let json =
                r#"{"destination":"/dev/shm","type":"tmpfs","options":["nosuid","mode=1777","size=1m"],"source":"#;
            mount(&format!("{json}{source:?}}}")).map(|mount| mount.source).map_err(|failure| failure.kind)
        };
        let shared = Source::Memory { name: "a1".into(), options: "mode=1777,size=1m".into() };
        assert_eq!(of("/run/dewar/memory/a1"), Ok(shared));
        assert_eq!(of("/run/dewar/memory/../a1"), Err(ErrorKind::Invalid));
        assert!(matches!(of("shm"), Ok(Source::Filesystem { .. })));
    }

    #[test]
    fn access_times_are_one_field() {
        let mut change = Change::default();
        assert!(change.apply("noatime") && change.apply("relatime"));
        assert_eq!(change.top.clear, libc::MOUNT_ATTR__ATIME);
        assert_eq!(change.top.set & libc::MOUNT_ATTR__ATIME, 0);
    }

    #[test]
    fn recursive_options_and_propagation_are_known() {
        let mut change = Change::default();
        assert!(change.apply("rro") && change.tree.set == libc::MOUNT_ATTR_RDONLY);
        assert!(change.apply("noexec") && change.top.set == libc::MOUNT_ATTR_NOEXEC);
        assert_eq!(change.tree.set, libc::MOUNT_ATTR_RDONLY, "only what says so is recursive");
        assert!(change.apply("rslave") && change.propagation == libc::MS_SLAVE && change.propagation_recursive);
        assert!(!change.apply("size=1"));
    }

    #[test]
    fn every_filesystem_and_copying_up() {
        let source = |kind: &str, options: &str| {
            mount(&format!(r#"{{"destination":"/m","type":"{kind}","options":[{options}]}}"#)).map(|m| m.source)
        };
        for (name, kernel) in FILESYSTEMS {
            let name_shown = kernel.to_owned();
            let expected = Source::Filesystem { kind: kernel, name: name_shown, options: Vec::new(), copy_up: false };
            assert_eq!(source(name, "").expect("valid"), expected);
        }
        assert!(matches!(source("tmpfs", r#""tmpcopyup""#), Ok(Source::Filesystem { copy_up: true, .. })));
        assert!(source("proc", r#""tmpcopyup""#).is_err());
        assert!(source("tmpfs", r#""size=1\u0000""#).is_err());
        assert!(source("tmpfs", r#""remount""#).is_err());
    }

    #[test]
    fn files_that_came_with_the_container_and_what_the_host_shares_are_bound() {
        let hosts = mount(r#"{"destination":"/etc/hosts","type":"bind","source":"/x","options":["rbind","ro"]}"#);
        assert_eq!(hosts.expect("valid").source, Source::File { number: 0 });
        let source = |options: &str| {
            let json = format!(r#"{{"destination":"/data","source":"/run/dewar/shared/1","options":[{options}]}}"#);
            mount(&json).map(|mount| mount.source).map_err(|failure| failure.kind)
        };
        let shared = |recursive| Source::Shared { path: "/run/dewar/shared/1".into(), recursive };
        assert_eq!(source(r#""bind""#), Ok(shared(false)));
        assert_eq!(source(r#""rbind","rw","rprivate""#), Ok(shared(true)));
        assert_eq!(source(r#""rbind","size=1""#), Err(ErrorKind::Invalid));
        assert_eq!(source(r#""rbind","idmap""#), Err(ErrorKind::Unsupported));
        let own = |source: &str| mount(&format!(r#"{{"destination":"/m","source":"{source}","options":["rbind"]}}"#));
        let root = |path: &str| Source::Root { path: path.into(), recursive: true };
        assert_eq!(own("/run/dewar/root/a/b").expect("valid").source, root("/a/b"));
        assert_eq!(own("/run/dewar/root").expect("valid").source, root("/"));
        assert_eq!(own("/run/dewar/root/a\\u0000").expect_err("refused").kind, ErrorKind::Invalid);
        assert_eq!(own("/run/dewar/notify").expect("valid").source, Source::Notify);
        assert_eq!(own("/run/dewar/notify/1").expect_err("refused").kind, ErrorKind::Invalid);
        let other = mount(r#"{"destination":"/data","source":"/x","options":["bind"]}"#);
        assert_eq!(other.expect_err("refused").kind, ErrorKind::Invalid);
        let disk = mount(r#"{"destination":"/data","type":"ext4","source":"/dev/vda"}"#);
        assert_eq!(disk.expect_err("refused").kind, ErrorKind::Unsupported);
        let root = mount(r#"{"destination":"/.","type":"tmpfs"}"#);
        assert_eq!(root.expect_err("refused").kind, ErrorKind::Invalid);
    }
}
