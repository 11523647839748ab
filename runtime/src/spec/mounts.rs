//! Docker's mounts, the user's tmpfs mounts among them, and the paths in /proc and /sys that are hidden or read-only.

use std::path::Path;

use oci_spec::runtime::Mount;

use super::{RunOptions, SpecError, Tmpfs};

const DEFAULT_SHM: u64 = 64 << 20;

pub(super) const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub(super) const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What stays writable although the root is read-only.
const WRITABLE_WITH_READONLY_ROOT: [&str; 5] = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];

/// Opposites among mount options: the later one wins.
const OPPOSITES: [(&str, &str); 9] = [
    ("rw", "ro"),
    ("exec", "noexec"),
    ("suid", "nosuid"),
    ("dev", "nodev"),
    ("async", "sync"),
    ("atime", "noatime"),
    ("diratime", "nodiratime"),
    ("relatime", "norelatime"),
    ("strictatime", "nostrictatime"),
];

fn mount(destination: &str, typ: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.into())
        .set_typ(Some(typ.into()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

fn default_mounts(options: &RunOptions) -> Vec<Mount> {
    let shm = if options.shm_size == 0 { DEFAULT_SHM } else { options.shm_size };
    let shm = format!("size={shm}");
    let sys_access = if options.privileged && !options.read_only { "rw" } else { "ro" };
    let cgroup_access = if options.privileged { "rw" } else { "ro" };
    vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &[cgroup_access, "nosuid", "noexec", "nodev"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ]
}

/// All mounts, each after those it lies in.
pub(super) fn of(options: &RunOptions) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = default_mounts(options);
    for (index, wanted) in options.tmpfs.iter().enumerate() {
        if options.tmpfs.iter().take(index).any(|other| other.path == wanted.path) {
            return Err(SpecError::DuplicateMount { path: wanted.path.clone() });
        }
        mounts.retain(|m| m.destination() != Path::new(&wanted.path));
        let merged = tmpfs_options(wanted);
        mounts.push(mount(&wanted.path, "tmpfs", "tmpfs", &merged));
    }
    if options.read_only {
        let kept = |m: &Mount| {
            WRITABLE_WITH_READONLY_ROOT.iter().any(|path| m.destination() == Path::new(path))
                || options.tmpfs.iter().any(|t| m.destination() == Path::new(&t.path))
        };
        for mount in mounts.iter_mut().filter(|m| !kept(m)) {
            if let Some(list) = mount.options_mut() {
                list.retain(|o| o != "rw" && o != "ro");
                list.push("ro".into());
            }
        }
    }
    // Stable, so that docker's own order stays.
    mounts.sort_by_key(|m| m.destination().components().count());
    Ok(mounts)
}

fn tmpfs_options(wanted: &Tmpfs) -> Vec<&str> {
    let mut merged = vec!["noexec", "nosuid", "nodev"];
    for option in &wanted.options {
        let name = |text: &str| text.split_once('=').map(|(name, _)| name.to_owned());
        let opposite = OPPOSITES.iter().find_map(|(a, b)| match option.as_str() {
            o if o == *a => Some(*b),
            o if o == *b => Some(*a),
            _ => None,
        });
        merged.retain(|other| {
            Some(*other) != opposite && *other != option && (name(option).is_none() || name(other) != name(option))
        });
        merged.push(option);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    fn options_of(mounts: &[Mount], path: &str) -> String {
        let found = mounts.iter().find(|m| m.destination() == Path::new(path)).expect("mounted");
        found.options().as_ref().expect("options").join(",")
    }

    #[test]
    fn the_defaults_are_docker_s() {
        let mounts = of(&RunOptions::default()).expect("valid");
        let order: Vec<_> = mounts.iter().map(|m| m.destination().to_str().expect("text")).collect();
        assert_eq!(order, ["/proc", "/dev", "/sys", "/dev/pts", "/dev/mqueue", "/dev/shm", "/sys/fs/cgroup"]);
        assert_eq!(options_of(&mounts, "/dev/shm"), "nosuid,noexec,nodev,mode=1777,size=67108864");
        assert_eq!(options_of(&mounts, "/sys"), "nosuid,noexec,nodev,ro");
        assert_eq!(options_of(&mounts, "/sys/fs/cgroup"), "ro,nosuid,noexec,nodev");
    }

    #[test]
    fn privileged_containers_write_to_sys_unless_all_is_read_only() {
        let privileged = RunOptions { privileged: true, ..RunOptions::default() };
        let mounts = of(&privileged).expect("valid");
        assert_eq!(options_of(&mounts, "/sys"), "nosuid,noexec,nodev,rw");
        assert_eq!(options_of(&mounts, "/sys/fs/cgroup"), "rw,nosuid,noexec,nodev");
        let both = of(&RunOptions { read_only: true, ..privileged }).expect("valid");
        assert_eq!(options_of(&both, "/sys"), "nosuid,noexec,nodev,ro");
        assert_eq!(options_of(&both, "/dev"), "nosuid,strictatime,mode=755,size=65536k");
    }

    #[test]
    fn the_user_s_tmpfs_is_safe_by_default_writable_and_may_replace_docker_s() {
        let tmpfs = ["/run:exec,size=1m,size=2m", "/dev/shm", "/tmp/a:ro"].map(|t| parse::tmpfs(t).expect("parses"));
        let options = RunOptions { tmpfs: tmpfs.to_vec(), read_only: true, ..RunOptions::default() };
        let mounts = of(&options).expect("valid");
        assert_eq!(options_of(&mounts, "/run"), "nosuid,nodev,exec,size=2m");
        assert_eq!(options_of(&mounts, "/tmp/a"), "noexec,nosuid,nodev,ro");
        assert_eq!(mounts.iter().filter(|m| m.destination() == Path::new("/dev/shm")).count(), 1);
        let twice = ["/run", "/run/"].map(|t| parse::tmpfs(t).expect("parses"));
        assert!(of(&RunOptions { tmpfs: twice.to_vec(), ..RunOptions::default() }).is_err());
    }
}
