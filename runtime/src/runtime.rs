//! What front ends call: makes, finds, starts and removes containers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dewar_protocol::{GuestFile, UserSpec, WindowSize};
use oci_spec::runtime::LinuxResources;

use crate::container::{Container, ContainerConfig, ContainerStore, ImageRef, Writable};
use crate::control::{Client, Streams, now_ns};
use crate::engine::EngineChoice;
use crate::images::{Image, Store};
use crate::spec::UpdateOptions;
use crate::supervisor::scratch;
use crate::{Error, ErrorKind, Paths, ResultExt, trace};

/// One installation with one state root.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub paths: Paths,
}

/// Everything about a container that is to be made.
#[derive(Debug)]
pub struct CreateOptions {
    /// From [`new_id`](crate::container::new_id): the host name and files of a container may tell it.
    pub id: String,
    pub name: String,
    /// As the user wrote it.
    pub image_name: String,
    /// JSON of the OCI `config.json`.
    pub spec: Vec<u8>,
    /// Path and arguments, for display.
    pub command: Vec<String>,
    pub user: UserSpec,
    pub files: Vec<GuestFile>,
    pub engine: EngineChoice,
    pub kernel: Option<PathBuf>,
    pub vcpus: u8,
    pub memory_mib: u64,
    pub writable: Writable,
    pub terminal: bool,
    pub open_stdin: bool,
    pub init: bool,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: i32,
    pub stop_timeout: u32,
    pub auto_remove: bool,
}

impl Runtime {
    /// # Errors
    /// As [`Paths::find`].
    pub fn open(root: Option<&Path>) -> Result<Self, Error> {
        Ok(Self { paths: Paths::find(root)? })
    }

    /// # Errors
    /// Those of opening the image store.
    pub fn images(&self) -> Result<Store, Error> {
        Store::open(self.paths.data.join("images")).context(|| "Cannot open the image store".into())
    }

    #[must_use]
    pub fn containers(&self) -> ContainerStore {
        ContainerStore::new(&self.paths)
    }

    /// Makes a container without starting it.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the name is taken; on any error nothing is left behind.
    pub fn create(&self, image: &Image, options: CreateOptions) -> Result<Container, Error> {
        let CreateOptions { spec, writable, .. } = options;
        let config = ContainerConfig {
            id: options.id,
            name: options.name,
            created_ns: now_ns(),
            image: ImageRef { name: options.image_name, id: image.id.to_string() },
            layers: image.layers.iter().map(|l| (l.path.clone(), l.length)).collect(),
            command: options.command,
            engine: options.engine,
            kernel: options.kernel,
            vcpus: options.vcpus,
            memory_mib: options.memory_mib,
            writable,
            terminal: options.terminal,
            open_stdin: options.open_stdin,
            init: options.init,
            user: options.user,
            files: options.files,
            labels: options.labels,
            stop_signal: options.stop_signal,
            stop_timeout: options.stop_timeout,
            auto_remove: options.auto_remove,
        };
        self.containers().create(config, &spec, |dir| match writable {
            Writable::Disk { size } => scratch::make(&self.paths, &dir.join("scratch.img"), size),
            Writable::Tmpfs { .. } => Ok(()),
        })
    }

    /// Starts a created or exited container and returns when its command runs. The answered connection can be waited on.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it runs already, [`ErrorKind::CommandNotFound`],
    /// [`ErrorKind::CommandNotExecutable`], [`ErrorKind::Machine`] with the guest's last words.
    pub fn start(&self, container: &Container, streams: Streams, size: Option<WindowSize>) -> Result<Client, Error> {
        if container.state()?.status.is_live() {
            return Err(Error::new(
                ErrorKind::State,
                format!("Container {} is running already", container.config.name),
            ));
        }
        let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
        self.spawn_supervisor(container, theirs.into())?;
        let mut client = Client::new(ours);
        trace::mark("supervisor spawned");
        client.start(streams, size)?;
        Ok(client)
    }

    /// The supervisor finds its first control connection on standard input. Its own messages go to a file, since it
    /// outlives its parent's terminal.
    fn spawn_supervisor(&self, container: &Container, connection: OwnedFd) -> Result<(), Error> {
        let program = self.paths.bin.join("dewar-supervisor");
        let messages = File::create(container.dir.join("supervisor.log"))
            .context(|| format!("Cannot write in {}", container.dir.display()))?;
        Command::new(&program)
            .arg(&container.config.id)
            .arg(&self.paths.data)
            .arg(&self.paths.run)
            .stdin(connection)
            .stdout(Stdio::null())
            .stderr(messages)
            .current_dir("/")
            .spawn()
            .context(|| format!("Cannot start {}", program.display()))?;
        Ok(())
    }

    /// Changes a container's limits, of a running one at once. A stopped one gets a machine of the size that they need; a
    /// running machine keeps its own.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for limits that make no sense or do not fit into the running machine,
    /// [`ErrorKind::State`] when it starts or ends at the same moment.
    pub fn update(&self, container: &mut Container, options: &UpdateOptions) -> Result<(), Error> {
        let live = container.state()?.status.is_live();
        let lock = if live { None } else { container.try_lock()? };
        if !live && lock.is_none() {
            let text = format!("Container {} is just being started or removed: try again", container.config.name);
            return Err(Error::new(ErrorKind::State, text));
        }
        let spec = container.spec()?;
        let now = spec.linux().as_ref().and_then(|l| l.resources().clone()).unwrap_or_default();
        let changes = options.changes(&now)?;
        let bytes = serde_json::to_vec(&changes).context(|| "Cannot encode the limits".into())?;
        let needed = machine_for(&container.config, options, &changes)?;
        if live {
            fits(&container.config, needed)?;
            return Client::connect(container)?.update(bytes);
        }
        container.change_limits(&bytes)?;
        container.resize_machine(needed.0, needed.1)
    }

    /// Removes a container; a running one only with `force`.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it runs and `force` is not given.
    pub fn remove(&self, container: &Container, force: bool) -> Result<(), Error> {
        if container.state()?.status.is_live() {
            if !force {
                return Err(Error::new(
                    ErrorKind::State,
                    format!(
                        "You cannot remove a running container {}. Stop the container before attempting removal or force \
                         remove",
                        container.config.id
                    ),
                ));
            }
            if let Ok(mut client) = Client::connect(container) {
                let _ = client.stop(Some(libc::SIGKILL), Some(0));
            }
        }
        // With auto-remove the supervisor may be removing it right now: its lock is gone when it has finished.
        if !container.dir.join("config.json").exists() {
            return Ok(());
        }
        let _lock = container.lock()?;
        if !container.dir.join("config.json").exists() {
            let _ = fs::remove_dir(&container.dir);
            return Ok(());
        }
        container.remove_files()
    }
}

/// Memory of a machine whose container has no limit, in MiB.
const DEFAULT_MEMORY_MIB: u64 = 512;
/// What a guest needs beside its container's memory: kernel, agent, page cache of the layers' metadata.
const OVERHEAD_MIB: u64 = 64;
/// As many as the guest kernel and the VMM support.
const MAX_VCPUS: u64 = 32;

/// Memory in MiB of the machine for a container limited to `limit` bytes.
#[must_use]
pub fn machine_memory_mib(limit: Option<u64>) -> u64 {
    let Some(limit) = limit else { return DEFAULT_MEMORY_MIB };
    let mib = limit.div_ceil(1 << 20);
    // The kernel's own bookkeeping takes 64 bytes for each 4 KiB page.
    mib + mib / 64 + OVERHEAD_MIB
}

/// vCPUs of the machine for a container limited to `cpus` (docker's `--cpus`) or to a set of CPUs; one without a limit.
#[must_use]
pub fn machine_vcpus(cpus: Option<f64>, cpuset: Option<u64>) -> u8 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=32 right after")]
    let from_quota = cpus.map(|c| c.ceil().clamp(1.0, 32.0) as u64);
    let wanted = cpuset.or(from_quota).unwrap_or(1).clamp(1, MAX_VCPUS);
    u8::try_from(wanted).unwrap_or(1)
}

/// vCPUs and memory in MiB of the machine that a container with changed limits wants: as it is where they say nothing.
fn machine_for(
    config: &ContainerConfig,
    options: &UpdateOptions,
    changes: &LinuxResources,
) -> Result<(u8, u64), Error> {
    let limit = options.memory.filter(|m| *m != 0);
    let memory = limit.map_or(config.memory_mib, |limit| machine_memory_mib(Some(limit)));
    let cpu = changes.cpu().as_ref();
    let cpuset = cpu.and_then(|c| c.cpus().as_deref()).map(crate::spec::parse::cpuset).transpose()?;
    #[expect(clippy::cast_precision_loss, reason = "at most 32 CPUs in billionths")]
    let cpus = options.nano_cpus.filter(|c| *c != 0).map(|c| c as f64 / 1e9);
    let vcpus = if cpus.is_none() && cpuset.is_none() { config.vcpus } else { machine_vcpus(cpus, cpuset) };
    Ok((vcpus, memory))
}

/// Whether a running machine is large enough.
fn fits(config: &ContainerConfig, needed: (u8, u64)) -> Result<(), Error> {
    let (what, has, wanted) = if needed.0 > config.vcpus {
        ("CPUs", u64::from(config.vcpus), u64::from(needed.0))
    } else if needed.1 > config.memory_mib {
        ("MiB of memory", config.memory_mib, needed.1)
    } else {
        return Ok(());
    };
    let name = &config.name;
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "The machine of container {name} has {has} {what} and cannot grow while it runs, these limits need {wanted}: \
             stop {name}, update it, and start it again"
        ),
    ))
}

/// The files that docker puts over an image's own: names of this host and of the loopback, and (there is no network yet)
/// an empty resolver configuration.
#[must_use]
pub fn host_files(hostname: &str) -> Vec<GuestFile> {
    let hosts = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.0.1\t{hostname}\n"
    );
    [("/etc/hosts", hosts), ("/etc/hostname", format!("{hostname}\n")), ("/etc/resolv.conf", String::new())]
        .into_iter()
        .map(|(path, text)| GuestFile { path: path.into(), mode: 0o644, content: text.into_bytes() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_sized_from_limits() {
        assert_eq!(machine_memory_mib(None), 512);
        assert_eq!(machine_memory_mib(Some(256 << 20)), 256 + 4 + 64);
        assert_eq!(machine_memory_mib(Some((6 << 20) + 1)), 7 + 64);
        assert_eq!(machine_vcpus(None, None), 1);
        assert_eq!(machine_vcpus(Some(0.5), None), 1);
        assert_eq!(machine_vcpus(Some(2.1), None), 3);
        assert_eq!(machine_vcpus(Some(400.0), None), 32);
        assert_eq!(machine_vcpus(Some(4.0), Some(2)), 2);
    }
}
