//! Which capabilities a container has: docker's default fourteen, `--cap-add`, `--cap-drop` and `--privileged`.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::{RunOptions, SpecError};

const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

const ALL: [(&str, Capability); 41] = [
    ("AUDIT_CONTROL", Capability::AuditControl),
    ("AUDIT_READ", Capability::AuditRead),
    ("AUDIT_WRITE", Capability::AuditWrite),
    ("BLOCK_SUSPEND", Capability::BlockSuspend),
    ("BPF", Capability::Bpf),
    ("CHECKPOINT_RESTORE", Capability::CheckpointRestore),
    ("CHOWN", Capability::Chown),
    ("DAC_OVERRIDE", Capability::DacOverride),
    ("DAC_READ_SEARCH", Capability::DacReadSearch),
    ("FOWNER", Capability::Fowner),
    ("FSETID", Capability::Fsetid),
    ("IPC_LOCK", Capability::IpcLock),
    ("IPC_OWNER", Capability::IpcOwner),
    ("KILL", Capability::Kill),
    ("LEASE", Capability::Lease),
    ("LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("MAC_ADMIN", Capability::MacAdmin),
    ("MAC_OVERRIDE", Capability::MacOverride),
    ("MKNOD", Capability::Mknod),
    ("NET_ADMIN", Capability::NetAdmin),
    ("NET_BIND_SERVICE", Capability::NetBindService),
    ("NET_BROADCAST", Capability::NetBroadcast),
    ("NET_RAW", Capability::NetRaw),
    ("PERFMON", Capability::Perfmon),
    ("SETFCAP", Capability::Setfcap),
    ("SETGID", Capability::Setgid),
    ("SETPCAP", Capability::Setpcap),
    ("SETUID", Capability::Setuid),
    ("SYSLOG", Capability::Syslog),
    ("SYS_ADMIN", Capability::SysAdmin),
    ("SYS_BOOT", Capability::SysBoot),
    ("SYS_CHROOT", Capability::SysChroot),
    ("SYS_MODULE", Capability::SysModule),
    ("SYS_NICE", Capability::SysNice),
    ("SYS_PACCT", Capability::SysPacct),
    ("SYS_PTRACE", Capability::SysPtrace),
    ("SYS_RAWIO", Capability::SysRawio),
    ("SYS_RESOURCE", Capability::SysResource),
    ("SYS_TIME", Capability::SysTime),
    ("SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("WAKE_ALARM", Capability::WakeAlarm),
];

/// A list of flags, its values made out.
struct Wanted {
    all: bool,
    named: Vec<Capability>,
}

impl Wanted {
    fn parse(list: &'static str, names: &[String]) -> Result<Self, SpecError> {
        let mut wanted = Self { all: false, named: Vec::new() };
        for name in names {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                wanted.all = true;
                continue;
            }
            let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
            let capability = by_name(plain).ok_or_else(|| SpecError::Capability { list, name: upper.clone() })?;
            wanted.named.push(capability);
        }
        Ok(wanted)
    }
}

/// `plain`: without `CAP_`, in capitals.
pub(super) fn by_name(plain: &str) -> Option<Capability> {
    ALL.iter().find(|(name, _)| *name == plain).map(|(_, capability)| *capability)
}

pub(super) fn all() -> Capabilities {
    ALL.iter().map(|(_, capability)| *capability).collect()
}

/// What `options` amount to.
pub(super) fn of(options: &RunOptions) -> Result<Capabilities, SpecError> {
    let add = Wanted::parse("CapAdd", &options.cap_add)?;
    let drop = Wanted::parse("CapDrop", &options.cap_drop)?;
    let mut set = if options.privileged {
        return Ok(all());
    } else if add.all {
        all()
    } else if drop.all {
        return Ok(add.named.into_iter().collect());
    } else {
        Capabilities::from(DEFAULT)
    };
    for capability in &drop.named {
        set.remove(capability);
    }
    set.extend(add.named.iter().filter(|c| !add.all || !drop.named.contains(c)));
    Ok(set)
}

/// The sets of a process: nothing inheritable or ambient, so that a program run by another user than root has none.
pub(super) fn sets(capabilities: &Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(capabilities.clone()))
        .set_effective(Some(capabilities.clone()))
        .set_permitted(Some(capabilities.clone()))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_flags(add: &[&str], drop: &[&str], privileged: bool) -> Result<Capabilities, SpecError> {
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        of(&RunOptions { cap_add: list(add), cap_drop: list(drop), privileged, ..RunOptions::default() })
    }

    #[test]
    fn additions_and_removals_combine_as_in_docker() {
        let default = Capabilities::from(DEFAULT);
        assert_eq!(of_flags(&[], &[], false).expect("valid"), default);
        let mut expected = default.clone();
        expected.insert(Capability::SysAdmin);
        expected.remove(&Capability::NetRaw);
        assert_eq!(of_flags(&["cap_sys_admin"], &["NET_RAW"], false).expect("valid"), expected);
        assert_eq!(of_flags(&["CHOWN"], &["ALL"], false).expect("valid"), Capabilities::from([Capability::Chown]));
        assert_eq!(of_flags(&[], &["all"], false).expect("valid"), Capabilities::default());
        assert_eq!(of_flags(&["ALL"], &["KILL"], false).expect("valid").len(), 40);
        assert_eq!(of_flags(&["ALL"], &["ALL"], false).expect("valid").len(), 41);
        assert_eq!(of_flags(&["NET_RAW"], &["NET_RAW"], false).expect("valid"), default);
        assert_eq!(of_flags(&[], &["ALL"], true).expect("valid").len(), 41);
    }

    #[test]
    fn an_unknown_capability_is_an_error_in_docker_s_words() {
        let error = of_flags(&["bogus"], &[], false).expect_err("unknown");
        assert_eq!(error.to_string(), "invalid CapAdd: unknown capability: \"BOGUS\"");
        assert!(of_flags(&[], &["CAP_CAP_CHOWN"], true).is_err());
    }
}
