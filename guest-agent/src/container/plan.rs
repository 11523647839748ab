//! What a container is to be: the OCI runtime specification's `config.json`, read and checked in the agent before
//! anything is made. What it asks for and this agent cannot do is an error, never ignored.

use std::{
    collections::HashMap,
    ffi::CString,
    path::{Path, PathBuf},
};

use dewar_protocol::{CreateContainer, ErrorKind};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxResources};
use rustix::fs::FileType;

use super::{
    hooks::{self, Hook},
    mounts::{Change, Mount, absolute},
    namespaces::{Namespaces, Whose},
    process::{ProcessPlan, Role},
    reading,
};
use crate::{
    child::devices::Device,
    error::{Doing, Failure, Result},
    scheduling,
    seccomp::Program,
};

/// Longest container id; it names a cgroup and a directory.
const MAX_ID: usize = 128;

/// A container that can be made.
pub struct Plan {
    pub process: ProcessPlan,
    pub namespaces: Namespaces,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub masked_paths: Vec<PathBuf>,
    pub read_only_paths: Vec<PathBuf>,
    pub root_change: Change,
    /// Files of procfs and what to write to them.
    pub sysctls: Vec<(PathBuf, String)>,
    pub seccomp: Option<Program>,
    pub resources: Option<LinuxResources>,
    /// For personality(2).
    pub personality: Option<u32>,
    /// Programs that run before the command, and what they read.
    pub hooks: Vec<Hook>,
    pub hook_state: Vec<u8>,
    pub init: bool,
}

impl Plan {
    /// Reads a request.
    pub fn from_request(request: &CreateContainer) -> Result<Self> {
        check_id(&request.id)?;
        let (spec, process) = reading::spec(&request.spec)?;
        let linux = spec.linux.as_ref().ok_or_else(|| Failure::invalid("The specification has no linux section"))?;
        refuse_unsupported(linux)?;
        let files: Vec<PathBuf> =
            request.files.iter().map(|file| absolute(Path::new(&file.path))).collect::<Result<_>>()?;
        let namespaces = Namespaces::from_spec(linux, &request.joins)?;
        if request.init && namespaces.pid != Whose::Own {
            return Err(Failure::invalid("An init of the container's own needs a PID namespace"));
        }
        let read_only = spec.root.as_ref().and_then(|root| root.readonly).unwrap_or(false);
        let asked = spec.annotations.as_ref().and_then(|all| all.get("run.oci.seccomp_fail_unknown_syscall"));
        let strict = asked.is_some_and(|value| value != "0");
        let seccomp = linux.seccomp().as_ref().map(|section| Program::compile(section, strict)).transpose();
        Ok(Self {
            process: ProcessPlan::from_spec(&process, &request.user, Role::Init)?,
            hostname: name(spec.hostname.as_ref(), namespaces.uts)?,
            domainname: name(spec.domainname.as_ref(), namespaces.uts)?,
            mounts: mounts(&spec, &files)?,
            devices: linux.devices().iter().flatten().map(device).collect::<Result<_>>()?,
            masked_paths: paths(linux.masked_paths().as_deref())?,
            read_only_paths: paths(linux.readonly_paths().as_deref())?,
            root_change: root_change(linux, read_only)?,
            sysctls: sysctls(linux.sysctl().as_ref(), &spec, &namespaces)?,
            seccomp: seccomp.doing_as(ErrorKind::Unsupported, || "The seccomp section cannot be applied".into())?,
            resources: linux.resources().clone(),
            personality: linux.personality().as_ref().map(scheduling::personality).transpose()?,
            hooks: hooks::from_spec(spec.hooks.as_ref())?,
            hook_state: request.hook_state.clone(),
            init: request.init,
            namespaces,
        })
    }
}

/// Whether an id can name a directory and a cgroup.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.chars().all(allowed) {
        return Err(Failure::invalid(format!("{id:?} is no container id")));
    }
    Ok(())
}

fn refuse_unsupported(linux: &Linux) -> Result<()> {
    let given = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::unsupported(format!("The specification's {name} is not supported"))),
        None => Ok(()),
    }
}

fn name(name: Option<&String>, namespace: Whose) -> Result<Option<CString>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if namespace == Whose::Sandbox {
        return Err(Failure::invalid("A host name needs a UTS namespace"));
    }
    CString::new(name.as_str()).map(Some).map_err(|_| Failure::invalid("The host name holds a null byte"))
}

fn mounts(spec: &reading::Spec, files: &[PathBuf]) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> =
        spec.mounts.iter().flatten().map(|mount| Mount::from_spec(mount, files)).collect::<Result<_>>()?;
    for (number, target) in files.iter().enumerate() {
        let source = super::mounts::Source::File { number };
        if !mounts.iter().any(|mount| mount.source == source) {
            mounts.push(Mount { source, target: target.clone(), change: Change::default() });
        }
    }
    Ok(mounts)
}

fn device(device: &LinuxDevice) -> Result<Device> {
    let path = absolute(device.path())?;
    let number = |value: i64| {
        u32::try_from(value).map_err(|_| Failure::invalid(format!("The device {} has no valid number", path.display())))
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return Err(Failure::invalid(format!("The device {} has no type", path.display()))),
    };
    Ok(Device {
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        stash: None,
        path,
    })
}

/// Each once: a mount over its own like shows nothing new.
fn paths(paths: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in paths.unwrap_or_default() {
        let path = absolute(Path::new(path))?;
        if !all.contains(&path) {
            all.push(path);
        }
    }
    Ok(all)
}

fn root_change(linux: &Linux, read_only: bool) -> Result<Change> {
    let mut change = Change::default();
    if let Some(propagation) = linux.rootfs_propagation().as_ref().filter(|value| !value.is_empty())
        && !(change.apply(propagation) && change.propagation != 0)
    {
        return Err(Failure::invalid(format!("{propagation:?} is no mount propagation")));
    }
    // Every mount of the guest is private from the start.
    if change.propagation == libc::MS_PRIVATE {
        change = Change::default();
    }
    // Of the root alone, and not of what is mounted in it.
    if read_only {
        change.top.set |= libc::MOUNT_ATTR_RDONLY;
    }
    Ok(change)
}

/// Settings that belong to a namespace of the container; others would change the machine for its whole pod.
fn sysctls(
    wanted: Option<&HashMap<String, String>>,
    spec: &reading::Spec,
    namespaces: &Namespaces,
) -> Result<Vec<(PathBuf, String)>> {
    let mut settings = Vec::new();
    for (key, value) in wanted.into_iter().flatten() {
        let path = sysctl_path(key)?;
        let has = |namespace| namespace != Whose::Sandbox;
        let ipc = ["kernel/shm", "kernel/msg", "kernel/sem", "fs/mqueue/"];
        // A host name has a field of its own; runc and crun refuse this one.
        if path == "kernel/hostname" {
            return Err(Failure::invalid(format!("The sysctl {key:?} is refused: give hostname")));
        }
        let own = (has(namespaces.network) && path.starts_with("net/"))
            || (has(namespaces.ipc) && ipc.iter().any(|prefix| path.starts_with(prefix)))
            || (has(namespaces.uts) && path == "kernel/domainname");
        if !own {
            return Err(Failure::invalid(format!("The sysctl {key:?} is not of a namespace of the container")));
        }
        let named = spec.domainname.as_ref().filter(|name| path == "kernel/domainname" && !name.is_empty());
        if named.is_some_and(|name| name != value) {
            return Err(Failure::invalid(format!("The sysctl {key:?} contradicts the specification's domainname")));
        }
        settings.push((Path::new("/proc/sys").join(path), value.clone()));
    }
    Ok(settings)
}

/// The file of a sysctl, as sysctl(8) finds it: the first separator is the one that separates, the other is part of a
/// name.
fn sysctl_path(key: &str) -> Result<String> {
    let path = match key.find(['.', '/']).and_then(|at| key.get(at..)) {
        Some(rest) if rest.starts_with('.') => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if path.split('/').all(plain) { Ok(path) } else { Err(Failure::invalid(format!("{key:?} names no sysctl"))) }
}

#[cfg(test)]
mod tests {
    use dewar_protocol::{Rootfs, Stdio, Upper, UserSpec};

    use super::*;

    fn request(linux: &str) -> CreateContainer {
        let spec = format!(
            r#"{{"ociVersion":"1.0.2","process":{{"args":["sh"],"cwd":"/","user":{{"uid":0,"gid":0}}}},
                "hostname":"box","root":{{"path":"rootfs","readonly":true}},"linux":{linux}}}"#
        );
        CreateContainer {
            id: "box".into(),
            spec: spec.into_bytes(),
            rootfs: Rootfs::Layers { disk: 0, layers: Vec::new(), upper: Upper::Tmpfs { size: 1 } },
            stdio: Stdio { terminal: None, stdin: None, stdout: None, stderr: None },
            user: UserSpec::Spec,
            files: Vec::new(),
            init: false,
            joins: Vec::new(),
            hook_state: Vec::new(),
        }
    }

    fn plan(linux: &str) -> Result<Plan> {
        Plan::from_request(&request(linux))
    }

    #[test]
    fn a_container_is_read() {
        let plan = plan(
            r#"{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"uts"},{"type":"cgroup"},{"type":"network"}],
                "maskedPaths":["/proc/kcore","/a","/proc/kcore"],"sysctl":{"net.ipv4.ip_forward":"1"},
                "devices":[{"path":"/dev/fuse","type":"c","major":10,"minor":229}]}"#,
        )
        .expect("valid");
        let flags = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWNET;
        assert_eq!(plan.namespaces.born_with(), flags);
        assert_eq!(plan.masked_paths, ["/proc/kcore", "/a"].map(PathBuf::from));
        assert_eq!(plan.sysctls, [(PathBuf::from("/proc/sys/net/ipv4/ip_forward"), "1".to_owned())]);
        assert_eq!((plan.devices[0].major, plan.devices[0].minor), (10, 229));
        assert_eq!(plan.root_change.top.set, libc::MOUNT_ATTR_RDONLY);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let kind = |linux: &str| plan(linux).err().map(|failure| failure.kind);
        let namespaces = r#""namespaces":[{"type":"mount"},{"type":"uts"}]"#;
        assert_eq!(kind(r#"{"namespaces":[{"type":"uts"}]}"#), Some(ErrorKind::Unsupported));
        assert_eq!(kind(r#"{"namespaces":[{"type":"mount","path":"/x"}]}"#), Some(ErrorKind::Unsupported));
        assert_eq!(kind(&format!(r#"{{{namespaces},"intelRdt":{{}}}}"#)), Some(ErrorKind::Unsupported));
        assert_eq!(kind(&format!(r#"{{{namespaces},"sysctl":{{"vm.swappiness":"1"}}}}"#)), Some(ErrorKind::Invalid));
        assert_eq!(kind(&format!(r#"{{{namespaces},"rootfsPropagation":"odd"}}"#)), Some(ErrorKind::Invalid));
        let mappings = r#"{"namespaces":[{"type":"mount"},{"type":"uts"},{"type":"user"}]}"#;
        assert_eq!(kind(mappings), Some(ErrorKind::Invalid));
    }

    #[test]
    fn sysctls_are_found_by_their_first_separator() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
            ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ] {
            assert_eq!(sysctl_path(key).expect("valid"), path);
        }
        for key in ["", "net..x", "net/../kernel/core_pattern", "../x", "net.ipv4.", "net.//.x"] {
            assert!(sysctl_path(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn a_sysctl_is_no_host_name_and_no_network_of_others() {
        let sysctl = |key: &str| {
            plan(&format!(r#"{{"namespaces":[{{"type":"mount"}},{{"type":"uts"}}],"sysctl":{{"{key}":"1"}}}}"#))
        };
        assert!(sysctl("kernel.domainname").is_ok());
        for key in ["kernel.hostname", "net.ipv4.ip_forward"] {
            assert_eq!(sysctl(key).err().map(|failure| failure.kind), Some(ErrorKind::Invalid));
        }
    }

    #[test]
    fn an_id_names_one_directory() {
        for id in ["", ".", "..", "a/b", "a b", ".hidden"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        assert!(check_id("web-1_a.b+c").is_ok());
    }
}
