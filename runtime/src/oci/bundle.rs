//! From a bundle's `config.json` to what its parts have to do: the machine, what the host shares, and the specification
//! that the guest's agent reads.
//!
//! The bundle is the engine's (podman's, docker's), and trusted as far as runc trusts it; the root filesystem in it is not:
//! its paths are only ever followed inside the guest.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use dewar_protocol::{Join, ROOT_DIR, SHARED_DIR};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hooks::{self, Hooks};
use super::idmap::IdMaps;
use super::notify;
use super::sandbox::SandboxSpec;
use super::shared_memory::SharedMemory;
use super::state::Record;
use super::support;
use crate::engine::EngineChoice;
use crate::{Error, ErrorKind, ResultExt, machine_memory_mib, machine_vcpus};

/// Shared memory that a machine without limits has room for anyway; docker's and podman's default.
const USUAL_SHARED_MIB: u64 = 64;

/// Something of the host that the guest shall see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    pub name: String,
    pub path: PathBuf,
    pub read_only: bool,
    /// With the mounts below it.
    pub recursive: bool,
    /// Where the container sees it; `/` for the root filesystem.
    pub target: PathBuf,
    pub id_maps: Option<IdMaps>,
}

impl Share {
    pub(super) fn is_root(&self) -> bool {
        self.target == Path::new("/")
    }
}

/// The container's network namespace on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum HostNetwork {
    /// None of its own.
    Host,
    New,
    Path(PathBuf),
}

/// A bundle that can be made a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub oci_version: String,
    pub annotations: BTreeMap<String, String>,
    /// What the agent reads: sources of bind mounts beneath [`SHARED_DIR`] or [`ROOT_DIR`], paths of namespaces gone.
    pub spec: Vec<u8>,
    /// Path of the root filesystem in the guest.
    pub guest_root: String,
    pub process: Vec<u8>,
    pub shares: Vec<Share>,
    pub joins: Vec<Join>,
    /// Folder of the sandbox that it joins.
    pub joined_sandbox: Option<PathBuf>,
    pub network: HostNetwork,
    pub terminal: bool,
    pub sandbox: SandboxSpec,
    /// It has a notify socket.
    pub notify: bool,
    /// JSON of its user namespace's `uidMappings` and `gidMappings`.
    pub mappings: Vec<u8>,
    pub cgroups_path: Option<String>,
    /// JSON of `linux.resources`.
    pub resources: Option<Vec<u8>>,
    pub hooks: Hooks,
}

/// What the command line adds to a bundle.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    pub id: &'a str,
    pub bundle: &'a Path,
    pub config: &'a Path,
    /// The other containers, whose namespaces may be joined.
    pub others: &'a [Record],
    /// The caller's service manager waits to hear that it is ready.
    pub notify: bool,
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

impl Plan {
    /// Reads and checks a bundle.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for what makes no sense, [`ErrorKind::Unsupported`] for what this runtime cannot do.
    pub(super) fn read(wishes: &Wishes<'_>) -> Result<Self, Error> {
        let given = wishes.bundle;
        let bundle = fs::canonicalize(given).kind(ErrorKind::Invalid, || format!("bundle {}", given.display()))?;
        let path = wishes.config;
        let text = fs::read(path).kind(ErrorKind::Invalid, || {
            format!("JSON specification file {} not found or not readable", path.display())
        })?;
        let mut spec: Value =
            serde_json::from_slice(&text).kind(ErrorKind::Invalid, || format!("{} does not parse", path.display()))?;
        support::refuse(&spec)?;
        spec.get_mut("process").into_iter().for_each(support::drop_unknown_capabilities);
        let mut spelled = spec.clone();
        spelled.get_mut("process").into_iter().for_each(support::spell_flags);
        // The types say which part is of a wrong shape.
        let _: oci_spec::runtime::Spec = serde_json::from_value(spelled)
            .kind(ErrorKind::Invalid, || format!("{} does not parse", path.display()))?;
        let oci_version = version(&spec)?;
        let rootfs = rootfs(&spec, &bundle)?;
        let key = share_key();
        let read_only = spec.pointer("/root/readonly").and_then(Value::as_bool).unwrap_or(false);
        let mut shares = vec![Share {
            name: format!("{key}.root"),
            path: rootfs.clone(),
            read_only,
            recursive: true,
            target: "/".into(),
            id_maps: None,
        }];
        let mappings = mappings(&spec, wishes.others);
        let shared_memory = share_mounts(&mut spec, &bundle, &mappings, &key, &mut shares)?;
        if wishes.notify {
            notify::give(&mut spec);
        }
        let (joins, joined_sandbox, network) = namespaces(&mut spec, wishes.others)?;
        let annotations = annotations(&spec);
        let resources = take_resources(&mut spec)?;
        let sandbox = machine(&spec, &annotations, resources.as_ref(), shared_memory)?;
        let process = spec.get_mut("process").ok_or_else(|| invalid("config.json has no process"))?;
        if annotations.get("run.oci.keep_original_groups").is_some_and(|value| value != "0") {
            keep_groups(process)?;
        }
        let terminal = process.get("terminal").and_then(Value::as_bool).unwrap_or(false);
        let hooks = hooks::take(&mut spec)?;
        let encoded = |value: &Value| serde_json::to_vec(value).context(|| "Cannot encode a specification".into());
        Ok(Self {
            id: wishes.id.to_owned(),
            guest_root: format!("{SHARED_DIR}/{key}.root"),
            notify: wishes.notify,
            mappings: encoded(&mappings)?,
            process: encoded(spec.get("process").unwrap_or(&Value::Null))?,
            cgroups_path: spec.pointer("/linux/cgroupsPath").and_then(Value::as_str).map(str::to_owned),
            resources: resources
                .map(|r| serde_json::to_vec(&r))
                .transpose()
                .context(|| "Cannot encode limits".into())?,
            spec: encoded(&spec)?,
            bundle,
            rootfs,
            oci_version,
            annotations,
            shares,
            joins,
            joined_sandbox,
            network,
            terminal,
            sandbox,
            hooks,
        })
    }
}

fn version(spec: &Value) -> Result<String, Error> {
    let version = spec.get("ociVersion").and_then(Value::as_str).unwrap_or_default();
    if version.split('.').next() != Some("1") {
        return Err(invalid(format!("unsupported ociVersion {version:?} in config.json: give 1.x")));
    }
    Ok(version.to_owned())
}

fn rootfs(spec: &Value, bundle: &Path) -> Result<PathBuf, Error> {
    let path = spec.pointer("/root/path").and_then(Value::as_str).filter(|path| !path.is_empty());
    let path = bundle.join(path.ok_or_else(|| invalid("config.json has no root.path"))?);
    let rootfs = fs::canonicalize(&path).kind(ErrorKind::Invalid, || format!("root filesystem {}", path.display()))?;
    if !rootfs.is_dir() {
        return Err(invalid(format!("the root filesystem {} is not a directory", rootfs.display())));
    }
    Ok(rootfs)
}

/// A name that no other container of the sandbox has.
fn share_key() -> String {
    let mut bytes = [0; 8];
    crate::control::fill_random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds the caller's groups to the process's (podman's `--group-add keep-groups`): files that it may use by them are shared.
fn keep_groups(process: &mut Value) -> Result<(), Error> {
    let groups = rustix::process::getgroups().context(|| "Cannot tell the caller's groups".into())?;
    let groups = groups.into_iter().map(|group| Value::from(group.as_raw()));
    match &mut process["user"]["additionalGids"] {
        Value::Array(list) => list.extend(groups),
        other => *other = Value::Array(groups.collect()),
    }
    Ok(())
}

fn annotations(spec: &Value) -> BTreeMap<String, String> {
    let entries = spec.get("annotations").and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// The id mappings of the container's user namespace: of one that it joins, those of the container that made it.
fn mappings(spec: &Value, others: &[Record]) -> Value {
    let entries = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let user = entries.into_iter().flatten().find(|entry| entry.get("type").is_some_and(|kind| kind == "user"));
    let path = user.and_then(|entry| entry.get("path")).and_then(Value::as_str).filter(|path| !path.is_empty());
    if let Some(other) = path.and_then(|path| owner(Path::new(path), others)) {
        return other.mappings.clone();
    }
    let linux = spec.get("linux").unwrap_or(&Value::Null);
    let own = ["uidMappings", "gidMappings"].map(|key| Some((key.to_owned(), linux.get(key)?.clone())));
    Value::Object(own.into_iter().flatten().collect())
}

/// Turns every bind mount into a share, and its source into the share's place in the guest. `mappings`: the container's;
/// `shares`: the root's. The answer is how many bytes of memory are in the place of others.
fn share_mounts(
    spec: &mut Value,
    bundle: &Path,
    mappings: &Value,
    key: &str,
    shares: &mut Vec<Share>,
) -> Result<u64, Error> {
    let mut bytes: u64 = 0;
    let rootfs = shares.first().map(|root| root.path.clone()).unwrap_or_default();
    let mounts = spec.get_mut("mounts").and_then(Value::as_array_mut);
    for (number, mount) in mounts.into_iter().flatten().enumerate() {
        let mut target = mount.get("destination").and_then(Value::as_str).unwrap_or_default().to_owned();
        // Older engines give the place on the host; runc takes it, too.
        if let Ok(inside) = Path::new(&target).strip_prefix(&rootfs) {
            target = Path::new("/").join(inside).display().to_string();
            mount["destination"] = Value::String(target.clone());
        }
        let options: Vec<String> = mount
            .get("options")
            .and_then(Value::as_array)
            .map(|options| options.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
        let has = |names: &[&str]| options.iter().any(|option| names.contains(&option.as_str()));
        let kind = mount.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "bind" && !has(&["bind", "rbind"]) {
            continue;
        }
        let source = mount.get("source").and_then(Value::as_str).filter(|source| !source.is_empty());
        let source = bundle.join(source.ok_or_else(|| invalid(format!("the mount on {target} has no source")))?);
        if let Some(inside) = inside(&rootfs, &source) {
            if IdMaps::take(mount, mappings)?.is_some() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the mount on {target} maps ids of {}, which is in the root filesystem: only what lies elsewhere on \
                         the host can be mapped",
                        source.display()
                    ),
                ));
            }
            mount["source"] = Value::String(Path::new(ROOT_DIR).join(inside).display().to_string());
            mount["type"] = Value::String("bind".into());
            continue;
        }
        let path = fs::canonicalize(&source)
            .kind(ErrorKind::Invalid, || format!("the source {} of the mount on {target}", source.display()))?;
        if let Some(kind) = kernel_filesystem(&path)? {
            own_filesystem(mount, kind);
            continue;
        }
        let id_maps = IdMaps::take(mount, mappings)?;
        if id_maps.is_none()
            && let Some(memory) = SharedMemory::at(&path)?
        {
            memory.replace(mount);
            bytes = bytes.saturating_add(memory.size);
            continue;
        }
        let name = format!("{key}.{number}");
        mount["source"] = Value::String(format!("{SHARED_DIR}/{name}"));
        mount["type"] = Value::String("bind".into());
        let read_only = has(&["ro", "rro"]);
        shares.push(Share { name, path, read_only, recursive: !has(&["bind"]), target: target.into(), id_maps });
    }
    Ok(bytes)
}

/// Where in the root filesystem a source lies. What is there is for the guest to see: earlier mounts of the container may have
/// brought it, and links of the image lead nowhere but into it.
fn inside<'a>(rootfs: &Path, source: &'a Path) -> Option<&'a Path> {
    let root = fs::metadata(rootfs).ok()?;
    // Few are it: they alone are worth a look at each step of their path.
    let is_root =
        |above: &Path| fs::metadata(above).is_ok_and(|meta| (meta.dev(), meta.ino()) == (root.dev(), root.ino()));
    let above =
        source.ancestors().find(|above| is_root(above) && fs::canonicalize(above).is_ok_and(|path| path == rootfs))?;
    let inside = source.strip_prefix(above).ok()?;
    inside.components().all(|part| matches!(part, Component::Normal(_))).then_some(inside)
}

/// Filesystems that show a kernel: a container of Dewar has a kernel of its own, and is shown that one's.
fn kernel_filesystem(path: &Path) -> Result<Option<&'static str>, Error> {
    const KINDS: [(i64, &str); 6] = [
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
        (0x0027_e0eb, "cgroup"),
        (0x6367_7270, "cgroup"),
        (0x1980_0202, "mqueue"),
        (0x1cd1, "devpts"),
    ];
    let found = rustix::fs::statfs(path).context(|| format!("Cannot look at {}", path.display()))?;
    let magic = found.f_type;
    Ok(KINDS.iter().find(|(known, _)| *known == magic).map(|(_, kind)| *kind))
}

/// Makes a bind mount one of a filesystem of the guest's kernel.
pub(super) fn own_filesystem(mount: &mut Value, kind: &str) {
    mount["type"] = Value::String(kind.into());
    mount["source"] = Value::String(kind.into());
    if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
        options.retain(|option| !matches!(option.as_str(), Some("bind" | "rbind")));
    }
}

type Joined = (Vec<Join>, Option<PathBuf>, HostNetwork);

/// Paths of namespaces: another container's puts this one into its sandbox; a network's is entered on the host.
fn namespaces(spec: &mut Value, others: &[Record]) -> Result<Joined, Error> {
    let (mut joins, mut sandbox, mut network) = (Vec::new(), None, HostNetwork::Host);
    let entries = spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        let path = entry.get("path").and_then(Value::as_str).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(object) = entry.as_object_mut() {
            object.remove("path");
        }
        let Some(path) = path else {
            if kind == "network" {
                network = HostNetwork::New;
            }
            continue;
        };
        match owner(&path, others) {
            Some(other) => {
                if sandbox.get_or_insert_with(|| other.sandbox.clone()) != &other.sandbox {
                    return Err(invalid(format!(
                        "the {kind} namespace {} is of another sandbox than the container's other namespaces",
                        path.display()
                    )));
                }
                joins.push(Join { namespace: kind.clone(), container: other.id.clone() });
                if kind == "network" {
                    network = HostNetwork::Path(path);
                }
            }
            None if kind == "network" => network = HostNetwork::Path(path),
            None => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "the {kind} namespace {} is not of a container of this runtime: a container in a machine of its \
                         own cannot join the host's namespaces",
                        path.display()
                    ),
                ));
            }
        }
    }
    Ok((joins, sandbox, network))
}

/// The container whose process's namespace a path like `/proc/PID/ns/ipc` is.
fn owner<'a>(path: &Path, others: &'a [Record]) -> Option<&'a Record> {
    let mut parts = path.strip_prefix("/proc").ok()?.iter();
    let pid: i32 = parts.next()?.to_str()?.parse().ok()?;
    if parts.next()? != "ns" {
        return None;
    }
    others.iter().find(|record| record.pid == pid && record.process().is_some())
}

/// The limits; what names devices and CPUs of the host is the host's alone, and leaves the guest's copy.
fn take_resources(spec: &mut Value) -> Result<Option<LinuxResources>, Error> {
    let Some(resources) = spec.pointer("/linux/resources") else { return Ok(None) };
    let typed: LinuxResources = serde_json::from_value(resources.clone())
        .kind(ErrorKind::Invalid, || "linux.resources does not parse".into())?;
    if let Some(block) = spec.pointer_mut("/linux/resources/blockIO").and_then(Value::as_object_mut) {
        block.retain(|name, _| !name.starts_with("throttle") && name != "weightDevice");
    }
    if let Some(cpu) = spec.pointer_mut("/linux/resources/cpu").and_then(Value::as_object_mut) {
        cpu.retain(|name, _| name != "cpus" && name != "mems");
    }
    Ok(Some(typed))
}

fn machine(
    spec: &Value,
    annotations: &BTreeMap<String, String>,
    resources: Option<&LinuxResources>,
    shared_memory: u64,
) -> Result<SandboxSpec, Error> {
    let memory = resources.and_then(|r| r.memory().as_ref()?.limit()).and_then(|limit| u64::try_from(limit).ok());
    let cpu = resources.and_then(|r| r.cpu().as_ref());
    let quota = cpu.and_then(oci_spec::runtime::LinuxCpu::quota).filter(|quota| *quota > 0);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a period")]
    let cpus = quota
        .map(|quota| quota as f64 / cpu.and_then(oci_spec::runtime::LinuxCpu::period).unwrap_or(100_000).max(1) as f64);
    let set = cpu.and_then(|c| c.cpus().as_ref()).filter(|set| !set.is_empty());
    let set = set.map(|set| crate::spec::parse::cpuset(set)).transpose()?;
    let mut sandbox = SandboxSpec {
        engine: EngineChoice::from_env()?,
        kernel: None,
        initrd: None,
        kernel_parameters: Vec::new(),
        vcpus: machine_vcpus(cpus, set),
        memory_mib: machine_memory_mib(memory.filter(|limit| *limit > 0)),
    };
    // A limit counts shared memory as well.
    if memory.is_none() {
        sandbox.memory_mib += (shared_memory >> 20).saturating_sub(USUAL_SHARED_MIB).min(1 << 20);
    }
    let wanted = |name: &str| annotations.get(&format!("dev.dewar.{name}"));
    if let Some(text) = wanted("vcpus") {
        let vcpus = text.parse().ok().filter(|n| (1..=32).contains(n));
        sandbox.vcpus =
            vcpus.ok_or_else(|| invalid(format!("the annotation dev.dewar.vcpus is {text:?}: give 1 to 32")))?;
    }
    if let Some(text) = wanted("memory-mib") {
        let memory = text.parse().ok().filter(|n| (64..=1 << 20).contains(n));
        sandbox.memory_mib = memory
            .ok_or_else(|| invalid(format!("the annotation dev.dewar.memory-mib is {text:?}: give 64 or more")))?;
    }
    if let Some(text) = wanted("engine") {
        sandbox.engine = text.parse()?;
    }
    let file = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).map(PathBuf::from);
    sandbox.kernel = file("/vm/kernel/path");
    sandbox.initrd = file("/vm/kernel/initrd");
    for path in [&sandbox.kernel, &sandbox.initrd].into_iter().flatten() {
        if !path.is_absolute() || !path.is_file() {
            return Err(invalid(format!(
                "the vm section names {}, which is no file by an absolute path",
                path.display()
            )));
        }
    }
    let parameters = spec.pointer("/vm/kernel/parameters").and_then(Value::as_array);
    sandbox.kernel_parameters = parameters.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str) -> Result<Plan, Error> {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("rootfs")).expect("makes");
        fs::create_dir(dir.path().join("data")).expect("makes");
        fs::write(dir.path().join("config.json"), config).expect("writes");
        Plan::read(&Wishes {
            id: "box",
            bundle: dir.path(),
            config: &dir.path().join("config.json"),
            others: &[],
            notify: false,
        })
    }

    fn config(rest: &str) -> String {
        format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"rootfs"}},"process":{{"args":["sh"],"cwd":"/","user":{{"uid":0,"gid":0}}}}{rest}}}"#
        )
    }

    #[test]
    fn bind_mounts_become_shares_and_kernel_filesystems_the_guest_s_own() {
        let plan = read(&config(
            r#","mounts":[{"destination":"/data","type":"bind","source":"data","options":["rbind","ro"]},
                {"destination":"/sys","type":"bind","source":"/proc/self","options":["rbind","ro"]},
                {"destination":"/tmp","type":"tmpfs","source":"tmpfs"}]"#,
        ))
        .expect("valid");
        assert_eq!(plan.shares.len(), 2);
        assert!(plan.shares[1].read_only && plan.shares[1].recursive);
        assert!(plan.shares[1].path.ends_with("data"));
        let spec: Value = serde_json::from_slice(&plan.spec).expect("JSON");
        assert_eq!(spec["mounts"][0]["source"], format!("{SHARED_DIR}/{}", plan.shares[1].name));
        assert_eq!(spec["mounts"][1]["type"], "proc");
        assert_eq!(spec["mounts"][1]["options"], serde_json::json!(["ro"]));
        assert_eq!(spec["mounts"][2]["source"], "tmpfs");
    }

    #[test]
    fn a_destination_on_the_host_is_one_in_the_root_filesystem() {
        let dir = tempfile::tempdir().expect("a folder");
        let rootfs = fs::canonicalize(dir.path()).expect("resolves");
        let mounts = |at: &str| serde_json::json!({"mounts": [{"destination": at, "type": "tmpfs"}]});
        let share = Share {
            name: "root".into(),
            path: rootfs.clone(),
            read_only: false,
            recursive: true,
            target: "/".into(),
            id_maps: None,
        };
        let of = |at: &str| {
            let mut spec = mounts(at);
            share_mounts(&mut spec, &rootfs, &Value::Null, "key", &mut vec![share.clone()]).expect("valid");
            spec["mounts"][0]["destination"].as_str().map(str::to_owned)
        };
        assert_eq!(of(&format!("{}/a/b", rootfs.display())).as_deref(), Some("/a/b"));
        assert_eq!(of("/a/b").as_deref(), Some("/a/b"));
        assert_eq!(of(&format!("{}x/a", rootfs.display())), Some(format!("{}x/a", rootfs.display())));
    }

    #[test]
    fn mappings_are_those_of_the_namespace_that_is_joined() {
        let ids = |host: u32| serde_json::json!([{"containerID": 0, "hostID": host, "size": 10}]);
        let maps = |host: u32| serde_json::json!({"uidMappings": ids(host), "gidMappings": ids(host)});
        let (pid_start, _) = super::super::state::process_start(std::process::id().cast_signed()).expect("lives");
        let other = serde_json::json!({
            "id": "other", "oci_version": "1.0.2", "bundle": "/b", "rootfs": "/b/rootfs", "annotations": {}, "created": "",
            "owner": "root", "pid": std::process::id(), "pid_start": pid_start, "sandbox": "/s", "engine": "qemu", "vcpus": 1,
            "memory_mib": 128, "creating": false, "early_hooks": false, "started": true, "paused": false, "poststart": [],
            "poststop": [], "cgroup": null, "process": {}, "bandwidth": {}, "notify": false, "mappings": maps(1000), "terminal": false,
        });
        let others: Vec<Record> = vec![serde_json::from_value(other).expect("a record")];
        let mut spec = serde_json::json!({"linux": {"namespaces": [{"type": "user"}]}});
        for (key, list) in maps(2000).as_object().expect("an object") {
            spec["linux"][key] = list.clone();
        }
        assert_eq!(mappings(&spec, &others), maps(2000));
        spec["linux"]["namespaces"][0]["path"] = Value::from(format!("/proc/{}/ns/user", std::process::id()));
        assert_eq!(mappings(&spec, &others), maps(1000));
        assert_eq!(mappings(&serde_json::json!({}), &others), serde_json::json!({}));
    }

    #[test]
    fn sources_in_the_root_filesystem_are_the_guest_s_to_find() {
        let plan = read(&config(
            r#","mounts":[{"destination":"/a","type":"bind","source":"rootfs/made/later","options":["bind","ro"]},
                {"destination":"/b","source":"rootfs","options":["rbind"]},
                {"destination":"/c","type":"bind","source":"rootfs/../data"}]"#,
        ))
        .expect("valid");
        assert_eq!(
            plan.shares.iter().map(|share| share.target.as_path()).collect::<Vec<_>>(),
            ["/", "/c"].map(Path::new)
        );
        let spec: Value = serde_json::from_slice(&plan.spec).expect("JSON");
        assert_eq!(spec["mounts"][0]["source"], format!("{ROOT_DIR}/made/later"));
        assert_eq!(Path::new(spec["mounts"][1]["source"].as_str().expect("text")), Path::new(ROOT_DIR));
        assert_eq!(spec["mounts"][1]["type"], "bind");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (rest, word) in [
            (r#","linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}"#, "pid"),
            (r#","annotations":{"dev.dewar.vcpus":"99"}"#, "vcpus"),
            (r#","mounts":[{"destination":"/x","type":"bind","source":"/none"}]"#, "/none"),
            (
                r#","mounts":[{"destination":"/x","type":"bind","source":"rootfs/x","options":["idmap=uids=0-1-1;gids=0-1-1"]}]"#,
                "maps ids",
            ),
            (r#","vm":{"kernel":{"path":"/none"}}"#, "/none"),
        ] {
            let error = read(&config(rest)).expect_err(rest);
            assert!(error.chain().contains(word), "{rest}: {}", error.chain());
        }
        assert!(read("{").is_err());
        assert!(read(r#"{"ociVersion":"2.0.0","root":{"path":"rootfs"}}"#).is_err());
    }

    #[test]
    fn the_caller_s_groups_are_kept_when_an_annotation_says_so() {
        let groups = |value: &str| {
            let plan = read(&config(&format!(r#","annotations":{{"run.oci.keep_original_groups":"{value}"}}"#)));
            let process: Value = serde_json::from_slice(&plan.expect("valid").process).expect("JSON");
            process["user"]["additionalGids"].as_array().cloned()
        };
        let own: Vec<Value> =
            rustix::process::getgroups().expect("groups").iter().map(|group| Value::from(group.as_raw())).collect();
        assert_eq!(groups("1"), Some(own));
        assert_eq!(groups("0"), None);
    }

    #[test]
    fn machines_are_sized_by_limits_and_annotations() {
        let limits = r#","linux":{"resources":{"memory":{"limit":268435456},"cpu":{"quota":150000,"period":100000},
            "blockIO":{"weight":10,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}]}}}"#;
        let plan = read(&config(limits)).expect("valid");
        assert_eq!((plan.sandbox.vcpus, plan.sandbox.memory_mib), (2, 256 + 4 + 64));
        let spec: Value = serde_json::from_slice(&plan.spec).expect("JSON");
        assert_eq!(spec["linux"]["resources"]["blockIO"], serde_json::json!({"weight": 10}));
        let plan =
            read(&config(r#","annotations":{"dev.dewar.memory-mib":"1024","dev.dewar.vcpus":"4"}"#)).expect("valid");
        assert_eq!((plan.sandbox.vcpus, plan.sandbox.memory_mib), (4, 1024));
    }
}
