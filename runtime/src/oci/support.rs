//! What of `config.json` is honoured, and where: one table, from which documentation, refusals and `features` come.
//!
//! The rows follow the OCI runtime specification 1.3 (config.md, config-linux.md, config-vm.md). Properties that it does
//! not know are passed over, as it demands (config.md, Extensibility); those that it knows are honoured or refused.

use std::fmt::Write;

use dewar_protocol::CAPABILITIES;
use serde_json::{Value, json};

use crate::{Error, ErrorKind};

/// The version of the specification that the table is of.
pub const SPEC_VERSION: &str = "1.2.1";

/// Who honours a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Guest,
    Host,
    Both,
    /// With the reason.
    Refused,
}

use Where::{Both, Guest, Host, Refused};

/// A field (`[]`: of each element), who honours it, and how or why not.
type Row = (&'static str, Where, &'static str);

const ROWS: &[Row] = &[
    ("ociVersion", Host, "1.x"),
    ("root.path", Host, "shared with the guest by virtio-fs; changes are seen on both sides at once"),
    (
        "root.readonly",
        Both,
        "read-only in the guest, and enforced by the server of the share, which lets mount points be made until the container is created",
    ),
    (
        "mounts[].destination",
        Guest,
        "links are followed inside the root only, and what they point to is made; a path of the root filesystem on the host is one in the container, as with runc",
    ),
    ("mounts[].type", Guest, "proc, sysfs, tmpfs, devpts, mqueue, cgroup, cgroup2, bind; a cgroup mount is always v2"),
    (
        "mounts[].source",
        Both,
        "of bind mounts: a directory or file of the host, shared by virtio-fs; one in the root filesystem is looked up in the guest, with what earlier mounts brought there, and is not among what createContainer hooks see; of the host's proc, sysfs, cgroup, mqueue and devpts: the guest's own; of a tmpfs named shm, as engines make it for /dev/shm: memory of the guest, the same for containers with the same source",
    ),
    (
        "mounts[].options",
        Guest,
        "see `features`; ro is also enforced by the server of the share; idmap and ridmap of bind mounts on the host, also with mappings as crun and podman write them",
    ),
    ("mounts[].uidMappings", Host, "of bind mounts"),
    ("mounts[].gidMappings", Host, "of bind mounts"),
    ("process.terminal", Both, "a terminal in the guest, joined to a raw one on the host"),
    ("process.consoleSize", Both, ""),
    ("process.cwd", Guest, ""),
    ("process.env", Guest, ""),
    ("process.args", Guest, ""),
    ("process.commandLine", Refused, "is for Windows"),
    ("process.user.uid", Guest, ""),
    ("process.user.gid", Guest, ""),
    ("process.user.umask", Guest, ""),
    ("process.user.additionalGids", Guest, ""),
    ("process.user.username", Refused, "is for Windows"),
    ("process.rlimits", Guest, ""),
    ("process.capabilities.bounding", Guest, ""),
    ("process.capabilities.effective", Guest, ""),
    ("process.capabilities.inheritable", Guest, ""),
    ("process.capabilities.permitted", Guest, ""),
    ("process.capabilities.ambient", Guest, ""),
    ("process.noNewPrivileges", Guest, ""),
    ("process.oomScoreAdj", Guest, ""),
    ("process.scheduler", Guest, ""),
    ("process.ioPriority", Guest, ""),
    ("process.execCPUAffinity", Guest, "of the guest's CPUs"),
    (
        "process.apparmorProfile",
        Guest,
        "refused by the agent when the guest's kernel has no AppArmor, as the default one has not",
    ),
    (
        "process.selinuxLabel",
        Guest,
        "refused by the agent when the guest's kernel has no SELinux, as the default one has not",
    ),
    ("hostname", Guest, ""),
    ("domainname", Guest, ""),
    ("hooks.prestart", Host, "in the network namespace of the container's process on the host"),
    ("hooks.createRuntime", Host, "in the network namespace of the container's process on the host"),
    (
        "hooks.createContainer",
        Host,
        "its path resolves in the runtime's namespace, where its program and libraries are, and the guest has neither: it runs in the network and mount namespaces of the container's process on the host, which show the root and the bind mounts; files that it changes are seen in the guest, mounts that it makes are not",
    ),
    ("hooks.startContainer", Guest, "its program lies in the container; it runs under the process's seccomp filter"),
    ("hooks.poststart", Host, ""),
    ("hooks.poststop", Host, ""),
    (
        "annotations",
        Host,
        "`dev.dewar.vcpus`, `dev.dewar.memory-mib` and `dev.dewar.engine` shape the machine, `org.systemd.property.NAME` the unit that --systemd-cgroup makes; of crun's, `run.oci.` and `hooks.stdout`, `hooks.stderr`, `keep_original_groups` (the caller's groups are added), `seccomp_fail_unknown_syscall`",
    ),
    ("linux.namespaces[].type", Guest, "all eight"),
    (
        "linux.namespaces[].path",
        Both,
        "of another container of this runtime: its machine is shared; of a network on the host: the container's process enters it; others are refused",
    ),
    ("linux.uidMappings", Guest, ""),
    ("linux.gidMappings", Guest, ""),
    ("linux.timeOffsets", Guest, ""),
    ("linux.devices", Guest, "nodes of the guest's devices"),
    ("linux.netDevices", Refused, "interfaces of the host cannot be moved into a machine"),
    (
        "linux.cgroupsPath",
        Host,
        "the container's process and the machine's; slice:prefix:name with --systemd-cgroup; in the guest the cgroup has the container's id",
    ),
    ("linux.resources.devices", Guest, ""),
    ("linux.resources.memory.limit", Both, "on the host with what a machine costs on top (192 MiB and 1/64)"),
    ("linux.resources.memory.reservation", Guest, ""),
    ("linux.resources.memory.swap", Guest, "the guest has no swap of its own"),
    ("linux.resources.memory.kernel", Guest, "accepted and of no effect, as in runc: kernels no longer have it"),
    ("linux.resources.memory.kernelTCP", Guest, "accepted and of no effect, as in runc: kernels no longer have it"),
    ("linux.resources.memory.swappiness", Guest, "accepted and of no effect, as in runc on cgroup v2"),
    ("linux.resources.memory.disableOOMKiller", Guest, "true is refused: cgroup v2 cannot"),
    ("linux.resources.memory.useHierarchy", Guest, "always so on cgroup v2"),
    ("linux.resources.memory.checkBeforeUpdate", Guest, ""),
    ("linux.resources.cpu.shares", Both, "as weight, converted as runc does"),
    ("linux.resources.cpu.quota", Both, "also the machine's number of vCPUs"),
    ("linux.resources.cpu.period", Both, ""),
    ("linux.resources.cpu.burst", Both, ""),
    ("linux.resources.cpu.realtimeRuntime", Refused, "cgroup v2 has no real-time groups"),
    ("linux.resources.cpu.realtimePeriod", Refused, "cgroup v2 has no real-time groups"),
    ("linux.resources.cpu.cpus", Both, "the host's CPUs for the machine, which has as many of its own"),
    ("linux.resources.cpu.mems", Host, "a guest has one memory node"),
    ("linux.resources.cpu.idle", Both, ""),
    ("linux.resources.pids.limit", Guest, "on the host the machine's threads are bounded, unless it is -1"),
    ("linux.resources.blockIO.weight", Both, ""),
    ("linux.resources.blockIO.leafWeight", Refused, "cgroup v2 has no leaf weights"),
    (
        "linux.resources.blockIO.weightDevice",
        Refused,
        "the machine's files lie on many devices: give a weight or throttles",
    ),
    ("linux.resources.blockIO.throttleReadBpsDevice", Host, ""),
    ("linux.resources.blockIO.throttleWriteBpsDevice", Host, ""),
    ("linux.resources.blockIO.throttleReadIOPSDevice", Host, ""),
    ("linux.resources.blockIO.throttleWriteIOPSDevice", Host, ""),
    ("linux.resources.hugepageLimits", Guest, ""),
    ("linux.resources.network.classID", Refused, "traffic of a machine cannot be marked yet"),
    ("linux.resources.network.priorities", Refused, "traffic of a machine cannot be marked yet"),
    ("linux.resources.rdma", Refused, "a guest has no RDMA devices"),
    ("linux.resources.unified", Guest, ""),
    ("linux.intelRdt", Refused, "a guest has no resource director"),
    ("linux.memoryPolicy", Refused, "a guest has one memory node"),
    ("linux.sysctl", Guest, "those of the container's namespaces"),
    ("linux.seccomp.defaultAction", Guest, ""),
    ("linux.seccomp.defaultErrnoRet", Guest, ""),
    ("linux.seccomp.architectures", Guest, ""),
    ("linux.seccomp.flags", Guest, ""),
    ("linux.seccomp.listenerPath", Refused, "a listener on the host cannot look into a machine"),
    ("linux.seccomp.listenerMetadata", Refused, "a listener on the host cannot look into a machine"),
    ("linux.seccomp.syscalls", Guest, "SCMP_ACT_NOTIFY is refused"),
    ("linux.rootfsPropagation", Guest, ""),
    ("linux.maskedPaths", Guest, ""),
    ("linux.readonlyPaths", Guest, ""),
    ("linux.mountLabel", Refused, "the guest's kernel has no SELinux"),
    ("linux.personality", Guest, ""),
    (
        "vm.hypervisor.path",
        Refused,
        "the VMM is this project's own: choose an engine by the annotation dev.dewar.engine",
    ),
    (
        "vm.hypervisor.parameters",
        Refused,
        "the VMM is this project's own: choose an engine by the annotation dev.dewar.engine",
    ),
    ("vm.kernel.path", Host, ""),
    ("vm.kernel.parameters", Host, ""),
    ("vm.kernel.initrd", Host, "must hold this version's agent"),
    ("vm.image.path", Refused, "the root filesystem is the bundle's"),
    ("vm.image.format", Refused, "the root filesystem is the bundle's"),
    ("vm.hwConfig", Refused, "the machine is sized by linux.resources and annotations"),
];

/// Refuses what a `config.json` asks for and this runtime cannot do.
///
/// # Errors
/// [`ErrorKind::Unsupported`] naming the field and the reason.
pub fn refuse(spec: &Value) -> Result<(), Error> {
    refuse_below(spec, "")?;
    let oom = spec.pointer("/linux/resources/memory/disableOOMKiller").and_then(Value::as_bool).unwrap_or(false);
    if oom {
        return Err(unsupported("linux.resources.memory.disableOOMKiller", "cgroup v2 cannot"));
    }
    Ok(())
}

/// Takes capabilities that no kernel has out of a `process`, with a warning: the specification forbids to fail for them.
pub(super) fn drop_unknown_capabilities(process: &mut Value) {
    let known = |name: &str| name.strip_prefix("CAP_").is_some_and(|name| CAPABILITIES.contains(&name));
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    let mut unknown = std::collections::BTreeSet::new();
    for list in sets.into_iter().flat_map(|sets| sets.values_mut()).filter_map(Value::as_array_mut) {
        list.retain(|name| {
            let keep = name.as_str().is_none_or(known);
            if !keep {
                unknown.extend(name.as_str().map(str::to_owned));
            }
            keep
        });
    }
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.into_iter().collect();
        // runc's words, which its callers know.
        eprintln!("dewar-oci: ignoring unknown or unavailable capabilities: [{}]", names.join(" "));
    }
}

/// Writes the scheduler's flags of a `process` as the types have them, which do not know the specification's word.
pub(super) fn spell_flags(process: &mut Value) {
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten().filter(|flag| *flag == "SCHED_FLAG_RESET_ON_FORK") {
        *flag = Value::from("SCHED_RESET_ON_FORK");
    }
}

/// The same for a `process` alone.
///
/// # Errors
/// As [`refuse`].
pub fn refuse_process(process: &Value) -> Result<(), Error> {
    refuse_below(process, "process.")
}

fn refuse_below(value: &Value, prefix: &str) -> Result<(), Error> {
    for (field, place, reason) in ROWS {
        let Some(path) = field.strip_prefix(prefix) else { continue };
        if *place == Refused && is_given(value, path) {
            return Err(unsupported(field, reason));
        }
    }
    Ok(())
}

fn unsupported(field: &str, reason: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{field} is not supported: {reason}"))
}

/// Whether a field is there and says something.
fn is_given(value: &Value, path: &str) -> bool {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(found) = value.get(name.trim_end_matches("[]")) else { return false };
    match rest {
        Some(rest) if name.ends_with("[]") => {
            found.as_array().is_some_and(|list| list.iter().any(|element| is_given(element, rest)))
        }
        Some(rest) => is_given(found, rest),
        None => match found {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(object) => !object.is_empty(),
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::Bool(_) => true,
        },
    }
}

/// The table as documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# What of `config.json` is honoured\n\n\
         The fields of the OCI runtime specification's `config.json` (up to version 1.3), who honours each, and how or why \
         not.\nA refused field is an error that names it; properties that the specification does not know are passed over, as \
         it demands.\nThe sections `windows`, `solaris` and `zos` are of other platforms and passed over.\n\n\
         Written by `dewar-oci features --markdown`.\n\n| field | where | how |\n|---|---|---|\n",
    );
    for (field, place, how) in ROWS {
        let place = match place {
            Guest => "guest",
            Host => "host",
            Both => "host and guest",
            Refused => "refused",
        };
        let _ = writeln!(text, "| `{field}` | {place} | {how} |");
    }
    text
}

const MOUNT_OPTIONS: &[&str] = &[
    "async",
    "atime",
    "bind",
    "defaults",
    "dev",
    "diratime",
    "dirsync",
    "exec",
    "lazytime",
    "mand",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "nolazytime",
    "nomand",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "private",
    "ratime",
    "rbind",
    "rdev",
    "rdiratime",
    "relatime",
    "rexec",
    "rnoatime",
    "rnodev",
    "rnodiratime",
    "rnoexec",
    "rnorelatime",
    "rnostrictatime",
    "rnosuid",
    "rnosymfollow",
    "ro",
    "rprivate",
    "rrelatime",
    "rro",
    "rrw",
    "rshared",
    "rslave",
    "rstrictatime",
    "rsuid",
    "rsymfollow",
    "runbindable",
    "rw",
    "shared",
    "silent",
    "loud",
    "slave",
    "strictatime",
    "suid",
    "symfollow",
    "sync",
    "tmpcopyup",
    "unbindable",
];

/// The document of the `features` verb (OCI runtime specification, features.md).
#[must_use]
pub fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": MOUNT_OPTIONS,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": [
                    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"
                ],
                "operators": [
                    "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ",
                    "SCMP_CMP_NE"
                ],
                "archs": ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"],
                "knownFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
                ],
                "supportedFlags": [
                    "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"
                ]
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": false}
        },
        "annotations": {"dev.dewar.version": env!("CARGO_PKG_VERSION")},
        "potentiallyUnsafeConfigAnnotations": ["dev.dewar.", "org.systemd.property."]
    })
}

/// The guest's kernel has all of Linux 6.1's, CAP_CHOWN (0) to CAP_CHECKPOINT_RESTORE (40).
fn capabilities() -> Vec<String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document in which the field says something.
    fn with(path: &str) -> Value {
        let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
        let inner = rest.map_or_else(|| json!("x"), with);
        match name.strip_suffix("[]") {
            Some(name) => json!({name: [inner]}),
            None => json!({name: inner}),
        }
    }

    #[test]
    fn every_row_is_refused_by_name_or_let_through() {
        for (field, place, reason) in ROWS {
            let result = refuse(&with(field));
            match place {
                Refused => {
                    let text = result.expect_err(field).to_string();
                    assert!(text.starts_with(field) && text.contains(reason) && !reason.is_empty(), "{field}: {text}");
                }
                _ => result.expect(field),
            }
        }
        refuse(&json!({"linux": {"intelRdt": null, "mountLabel": "", "resources": {"rdma": {}}}, "unknown": 1}))
            .expect("nothing said");
    }

    #[test]
    fn every_field_of_the_types_has_a_row() {
        // The crate's own sample and the template's fields, walked down to the table's rows.
        for spec in [
            serde_json::to_value(oci_spec::runtime::Spec::default()).expect("encodes"),
            super::super::spec_template::template(true),
        ] {
            walk(&spec, "");
        }
    }

    fn walk(value: &Value, path: &str) {
        let known = |path: &str| ROWS.iter().any(|(field, ..)| *field == path);
        let leads = |path: &str| {
            ROWS.iter().any(|(field, ..)| field.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '['])))
        };
        if known(path) {
            return;
        }
        assert!(path.is_empty() || leads(path), "no row for {path}");
        match value {
            Value::Object(object) => {
                for (name, inner) in object {
                    walk(inner, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") });
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| walk(inner, &format!("{path}[]"))),
            _ => {}
        }
    }

    #[test]
    fn unknown_capabilities_are_passed_over() {
        let mut process =
            json!({"capabilities": {"bounding": ["CAP_CHOWN", "CAP_NO_SUCH", "chown"], "effective": null}});
        drop_unknown_capabilities(&mut process);
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
    }

    #[test]
    fn the_specification_s_word_for_a_flag_is_known() {
        let mut process = json!({"scheduler": {"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}});
        spell_flags(&mut process);
        let scheduler = serde_json::from_value::<oci_spec::runtime::Scheduler>(process["scheduler"].clone());
        assert_eq!(scheduler.expect("parses").flags().as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn the_documentation_is_this_table() {
        let committed = include_str!("../../../docs/oci-support.md");
        assert!(committed == markdown(), "docs/oci-support.md is old: write it by `dewar-oci features --markdown`");
    }
}
