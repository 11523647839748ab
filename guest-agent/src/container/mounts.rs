//! Mounts of the specification, read and checked in the agent (OCI runtime specification, "Mounts").

use std::path::{Path, PathBuf};

use oci_spec::runtime;

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
    Filesystem { kind: String, name: String, options: Vec<(String, Option<String>)> },
    /// One of the files that came with the container.
    File { number: usize },
}

/// Attributes of a mount to change, as in mount_setattr(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub recursive: bool,
}

/// Filesystems a container may ask for, and what the kernel calls them.
const FILESYSTEMS: [(&str, &str); 7] = [
    ("proc", "proc"),
    ("sysfs", "sysfs"),
    ("tmpfs", "tmpfs"),
    ("devpts", "devpts"),
    ("mqueue", "mqueue"),
    ("cgroup", "cgroup2"),
    ("cgroup2", "cgroup2"),
];

impl Mount {
    /// Reads one mount. `files`: the absolute paths of the files that came with the container.
    pub fn from_spec(mount: &runtime::Mount, files: &[PathBuf]) -> Result<Self> {
        let target = absolute(mount.destination())?;
        let mut change = Change::default();
        let mut rest = Vec::new();
        let mut bind = mount.typ().as_deref() == Some("bind");
        for option in mount.options().iter().flatten() {
            match option.as_str() {
                "bind" | "rbind" => bind = true,
                "defaults" | "" => {}
                other if change.apply(other) => {}
                other => rest.push(other),
            }
        }
        if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() {
            return Err(Failure::unsupported(format!("The mount of {} has id mappings", target.display())));
        }
        let source = if bind { file(&target, files, &rest)? } else { filesystem(mount, &target, &rest)? };
        Ok(Self { source, target, change })
    }
}

impl Change {
    /// Applies a mount option that concerns the mount and not the filesystem; whether it is one.
    pub fn apply(&mut self, option: &str) -> bool {
        let plain = option.strip_prefix('r').filter(|rest| ATTRIBUTES.iter().any(|(name, ..)| name == rest));
        if let Some((_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == plain.unwrap_or(option)) {
            // The kernel refuses to set what it is also asked to clear; the last option counts.
            self.set = self.set & !clear | set;
            self.clear = self.clear & !set | clear;
            self.recursive |= plain.is_some();
            return true;
        }
        let Some((_, propagation, recursive)) = PROPAGATION.iter().find(|(name, ..)| *name == option) else {
            return false;
        };
        self.propagation = *propagation;
        self.recursive |= recursive;
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

fn file(target: &Path, files: &[PathBuf], rest: &[&str]) -> Result<Source> {
    if let Some(option) = rest.first() {
        return Err(Failure::unsupported(format!(
            "The mount option {option:?} of {} is not supported",
            target.display()
        )));
    }
    let number = files.iter().position(|path| path == target).ok_or_else(|| {
        Failure::unsupported(format!("{} would be bound from the host, which is not supported yet", target.display()))
    })?;
    Ok(Source::File { number })
}

fn filesystem(mount: &runtime::Mount, target: &Path, rest: &[&str]) -> Result<Source> {
    let asked = mount.typ().as_deref().unwrap_or_default();
    let (_, kind) = FILESYSTEMS.iter().find(|(name, _)| *name == asked).ok_or_else(|| {
        Failure::unsupported(format!("{} is of type {asked:?}, which is not supported", target.display()))
    })?;
    if rest.contains(&"tmpcopyup") {
        return Err(Failure::unsupported(format!(
            "The mount option tmpcopyup of {} is not supported",
            target.display()
        )));
    }
    let options = rest
        .iter()
        // devpts is always a new instance; the option is of older kernels.
        .filter(|option| **option != "newinstance")
        .map(|option| match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => ((*option).to_owned(), None),
        })
        .collect();
    let name = mount.source().as_ref().and_then(|source| source.to_str()).unwrap_or(kind);
    Ok(Source::Filesystem { kind: (*kind).to_owned(), name: name.to_owned(), options })
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
        assert_eq!(tmpfs.source, Source::Filesystem { kind: "tmpfs".into(), name: "shm".into(), options });
        assert_eq!(tmpfs.change.set, libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NODEV);
        assert_eq!(tmpfs.change.clear, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn access_times_are_one_field() {
        let mut change = Change::default();
        assert!(change.apply("noatime") && change.apply("relatime"));
        assert_eq!(change.clear, libc::MOUNT_ATTR__ATIME);
        assert_eq!(change.set & libc::MOUNT_ATTR__ATIME, 0);
    }

    #[test]
    fn recursive_options_and_propagation_are_known() {
        let mut change = Change::default();
        assert!(change.apply("rro") && change.recursive && change.set == libc::MOUNT_ATTR_RDONLY);
        assert!(change.apply("rslave") && change.propagation == libc::MS_SLAVE);
        assert!(!change.apply("size=1"));
    }

    #[test]
    fn only_files_that_came_with_the_container_are_bound() {
        let hosts = mount(r#"{"destination":"/etc/hosts","type":"bind","source":"/x","options":["rbind","ro"]}"#);
        assert_eq!(hosts.expect("valid").source, Source::File { number: 0 });
        let other = mount(r#"{"destination":"/data","source":"/x","options":["bind"]}"#);
        assert_eq!(other.expect_err("refused").kind, ErrorKind::Unsupported);
        let disk = mount(r#"{"destination":"/data","type":"ext4","source":"/dev/vda"}"#);
        assert_eq!(disk.expect_err("refused").kind, ErrorKind::Unsupported);
    }
}
