//! The OCI runtime: runc's verbs over bundles, each container in a machine of its own or in its pod's.
//!
//! Processes: `create` starts a container's process ([`monitor`]), whose id is the container's `pid`; the first of a
//! sandbox forks the [`sandbox`], which owns the machine. Other verbs read the container's folder ([`state`]) and ask the
//! sandbox ([`link`]). What of `config.json` is honoured where stands in [`support`].

mod bundle;
mod console;
pub mod events;
mod exec;
mod foreground;
mod hooks;
mod host_cgroup;
mod idmap;
mod link;
mod machine_group;
mod monitor;
mod network;
mod notify;
mod proc_view;
mod sandbox;
mod shared_memory;
mod signals;
pub mod spec_template;
mod state;
pub mod support;
mod systemd;
mod time;
pub mod update;
mod view;

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dewar_protocol::{ProcessInfo, ProcessRef, Reply, Request, Stats};
use oci_spec::runtime::LinuxResources;
use rustix::process::{Signal, pidfd_send_signal};

pub use exec::ExecOptions;
pub use host_cgroup::CgroupManager;
pub use monitor::run as run_container;
pub use state::{State, Status};
pub use time::rfc3339;

use crate::control::wire::Wire;
use crate::control::{ControlError, StreamMask, Streams};
use crate::supervisor::unexpected;
use crate::{Error, ErrorKind, Paths, ResultExt};
use host_cgroup::HostCgroup;
use link::Link;
use monitor::{Create, Created};
use state::{Folder, Record, check_id, wait_end};

/// What a killed container gets to be gone.
const KILL: Duration = Duration::from_secs(20);

/// What one that `kill` has killed gets: on a kernel of its own the news takes a while.
const KILLED: Duration = Duration::from_secs(1);

/// One state root.
#[derive(Debug, Clone)]
pub struct Oci {
    root: PathBuf,
    /// The root is not the usual one.
    given: bool,
    cgroups: CgroupManager,
}

/// How `create` and `run` are called.
#[derive(Debug, Default)]
pub struct CreateOptions {
    pub bundle: PathBuf,
    /// Of the configuration, in the bundle; `config.json` when none is given.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
}

impl CreateOptions {
    fn config_path(&self) -> PathBuf {
        self.bundle.join(self.config.as_deref().unwrap_or_else(|| Path::new("config.json")))
    }
}

fn state_error(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::State, text)
}

/// This process's standard streams.
fn own_streams() -> Streams {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok();
    Streams {
        stdin: copy(std::io::stdin().as_fd()),
        stdout: copy(std::io::stdout().as_fd()),
        stderr: copy(std::io::stderr().as_fd()),
    }
}

/// Puts /dev/null in the place of standard input and output.
fn leave_input_and_output() -> Result<fs::File, Error> {
    let null = fs::File::options().read(true).write(true).open("/dev/null");
    let null = null.context(|| "Cannot open /dev/null".into())?;
    rustix::stdio::dup2_stdin(&null).context(|| "Cannot close standard input".into())?;
    rustix::stdio::dup2_stdout(&null).context(|| "Cannot close standard output".into())?;
    Ok(null)
}

fn write_pid_file(path: &Path, pid: i32) -> Result<(), Error> {
    let failed = || format!("Cannot write the pid file {}", path.display());
    // Whoever watches for the file finds it whole.
    let next = path.with_extension("next");
    let mut file = fs::File::create(&next).context(failed)?;
    write!(file, "{pid}").context(failed)?;
    fs::rename(&next, path).context(failed)
}

impl Oci {
    /// # Errors
    /// [`ErrorKind::Invalid`] when no root can be told.
    pub fn open(root: Option<&Path>, cgroups: CgroupManager) -> Result<Self, Error> {
        let given = root.is_some();
        let root = match root {
            Some(root) => std::path::absolute(root).context(|| format!("Cannot resolve {}", root.display()))?,
            None => Paths::run_only()?.join("oci-state"),
        };
        Ok(Self { root, given, cgroups })
    }

    fn folder(&self, id: &str) -> Folder {
        Folder::of(&self.root, id)
    }

    /// Makes a container whose init waits for [`Oci::start`]; answers a line for the user, if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the id is taken, [`ErrorKind::Invalid`] and [`ErrorKind::Unsupported`] for what the
    /// bundle asks, [`ErrorKind::Machine`] with the guest's last words. On any error nothing is left behind.
    pub fn create(&self, id: &str, options: &CreateOptions) -> Result<Option<String>, Error> {
        let console = options.console_socket.as_deref().map(console::connect).transpose()?;
        let (_, notice) = self.make(id, options, console)?;
        Ok(notice)
    }

    /// Creates and starts a container. Detached it answers 0 at once; otherwise the container's exit code, and the
    /// container is deleted.
    ///
    /// # Errors
    /// Those of [`Oci::create`] and [`Oci::start`].
    pub fn run(
        &self,
        id: &str,
        options: &CreateOptions,
        detach: bool,
        keep: bool,
    ) -> Result<(u8, Option<String>), Error> {
        let terminal = bundle_terminal(&options.config_path())?;
        let mut own_console = None;
        let console = match &options.console_socket {
            Some(path) => Some(console::connect(path)?),
            None if terminal && detach => {
                let text = "cannot allocate tty if runc will detach without setting console socket";
                return Err(Error::new(ErrorKind::Invalid, text));
            }
            None if terminal => {
                let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
                own_console = Some(ours);
                Some(theirs)
            }
            None => None,
        };
        let (child, notice) = self.make(id, options, console)?;
        let record = self.begin(id).inspect_err(|_| drop(self.delete(id, true)))?;
        if let Some(manager) = notify::of_the_caller().filter(|_| record.notify) {
            let tell = move || {
                if let Err(error) = notify::pass_on(&record, &manager) {
                    eprintln!("dewar-oci: {}", error.chain());
                }
            };
            if detach {
                tell();
            } else {
                // Signals are for the container, and none for this thread.
                signals::block_all().context(|| "Cannot block signals".into())?;
                let thread = std::thread::Builder::new().name("notify".into()).spawn(tell);
                thread.context(|| "Cannot start a thread".into())?;
            }
        }
        if detach {
            return Ok((0, notice));
        }
        let pid = i32::try_from(child.id()).unwrap_or_default();
        let code = exec::wait_child(pid, own_console.as_ref())?;
        if !keep {
            self.delete(id, true)?;
        }
        Ok((code, notice))
    }

    fn make(
        &self,
        id: &str,
        options: &CreateOptions,
        console: Option<UnixStream>,
    ) -> Result<(Child, Option<String>), Error> {
        check_id(id)?;
        let others = state::list(&self.root)?;
        if self.folder(id).path.exists() {
            return Err(Error::new(ErrorKind::Conflict, format!("container with given ID already exists: {id}")));
        }
        let plan = bundle::Plan::read(&bundle::Wishes {
            id,
            bundle: &options.bundle,
            config: &options.config_path(),
            others: &others,
            notify: notify::of_the_caller().is_some(),
        })?;
        if plan.terminal != console.is_some() {
            let text = if plan.terminal {
                "cannot allocate tty if runc will detach without setting console socket"
            } else {
                "cannot use console socket if runc will not detach or allocate tty"
            };
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        crate::paths::make_private_dir(&self.root)?;
        let folder = self.folder(id);
        match fs::create_dir(&folder.path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::new(ErrorKind::Conflict, format!("container with given ID already exists: {id}")));
            }
            made => made.context(|| format!("Cannot make {}", folder.path.display()))?,
        }
        // Whoever starts or deletes it before it is there waits.
        let _lock = folder.lock()?;
        let made = self.make_in(&folder, plan, console).and_then(|(child, notice)| {
            if let Some(path) = &options.pid_file {
                write_pid_file(path, i32::try_from(child.id()).unwrap_or_default())?;
            }
            Ok((child, notice))
        });
        if made.is_err() {
            self.undo(&folder);
        }
        made
    }

    /// Leaves nothing of a container that could not be made.
    fn undo(&self, folder: &Folder) {
        if let Ok(record) = folder.read() {
            if let Some(process) = record.process() {
                let _ = pidfd_send_signal(&process, Signal::KILL);
                wait_end(&process, KILL);
            }
            let _ = self.clean(folder, &record);
        } else {
            let _ = fs::remove_dir_all(&folder.path);
        }
    }

    fn make_in(
        &self,
        folder: &Folder,
        plan: bundle::Plan,
        console: Option<UnixStream>,
    ) -> Result<(Child, Option<String>), Error> {
        let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
        let child = spawn_container(folder, &plan, theirs.into())?;
        let streams = if console.is_some() { Streams::default() } else { own_streams() };
        let request = Create {
            plan,
            folder: folder.path.clone(),
            run: Paths::run_only()?,
            cgroups: self.cgroups,
            streams: StreamMask {
                stdin: streams.stdin.is_some(),
                stdout: streams.stdout.is_some(),
                stderr: streams.stderr.is_some(),
            },
            console: console.is_some(),
        };
        let fds: Vec<BorrowedFd<'_>> = match &console {
            Some(console) => vec![console.as_fd()],
            None => [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten().map(AsFd::as_fd).collect(),
        };
        let mut wire = Wire::new(ours);
        wire.send(&request, &fds)?;
        let answer: Option<Result<Created, ControlError>> = wire.receive()?;
        let answer = answer.ok_or_else(|| {
            let log = fs::read_to_string(folder.path.join("log")).unwrap_or_default();
            Error::new(ErrorKind::Internal, format!("The container's process ended early: {}", log.trim()))
        })?;
        Ok((child, answer?.notice))
    }

    /// Lets a created container run its command. With a service manager that waits for it to be ready, so does this.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it is not in the state created; what a failed start leaves is stopped.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        let record = self.begin(id)?;
        match notify::of_the_caller() {
            Some(manager) if record.notify => notify::pass_on(&record, &manager),
            _ => Ok(()),
        }
    }

    fn begin(&self, id: &str) -> Result<Record, Error> {
        let folder = self.folder(id);
        let _lock = folder.lock()?;
        let mut record = folder.read()?;
        match record.status() {
            Status::Created => {}
            Status::Stopped => return Err(state_error("cannot start a container that has stopped")),
            _ => return Err(state_error("cannot start an already running container")),
        }
        Link::connect(&record.sandbox)?.agent_done(Request::Start { container: id.to_owned() })?;
        record.started = true;
        folder.write(&record)?;
        let state = hooks::state_json(&record.state(record.status()));
        hooks::run(hooks::Moment::Poststart, &record.poststart, &record.hooks_place(), &state)?;
        Ok(record)
    }

    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such container.
    pub fn state(&self, id: &str) -> Result<State, Error> {
        let folder = self.folder(id);
        let mut record = folder.read()?;
        if record.status() == Status::Creating && !record.early_hooks {
            // Nobody has a use for less than the outcome.
            let _lock = folder.lock()?;
            record = folder.read()?;
        }
        Ok(record.state(record.status()))
    }

    /// # Errors
    /// When the root cannot be read.
    pub fn list(&self) -> Result<Vec<State>, Error> {
        if self.given && !self.root.exists() {
            return Err(Error::new(ErrorKind::NotFound, format!("{} does not exist", self.root.display())));
        }
        Ok(state::list(&self.root)?.iter().map(|record| record.state(record.status())).collect())
    }

    fn live(&self, id: &str) -> Result<(Record, Link), Error> {
        let record = self.folder(id).read()?;
        if record.status() == Status::Stopped {
            return Err(state_error("container not running"));
        }
        let link = Link::connect(&record.sandbox)?;
        Ok((record, link))
    }

    /// Sends a signal to the container's init, or to all its processes. What SIGKILL ends has ended when this returns, unless
    /// it takes unusually long.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it does not run.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let record = self.folder(id).read()?;
        if all && record.status() == Status::Stopped {
            return Ok(());
        }
        let (record, mut link) = self.live(id)?;
        let process = ProcessRef { container: id.to_owned(), exec: None };
        link.agent_done(Request::Signal { process, signal, all })?;
        if signal == libc::SIGKILL
            && let Some(process) = record.process()
        {
            wait_end(&process, KILLED);
        }
        Ok(())
    }

    /// Removes a stopped container; with `force` also a running one, and none without a word.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it runs, [`ErrorKind::NotFound`].
    pub fn delete(&self, id: &str, force: bool) -> Result<(), Error> {
        let folder = self.folder(id);
        if force && let Ok(record) = folder.read() {
            // Its `create` gives up, and leaves nothing.
            let process = record.process().filter(|_| record.status() == Status::Creating);
            process.iter().for_each(|process| {
                let _ = pidfd_send_signal(process, Signal::KILL);
            });
        }
        let _lock = match folder.lock() {
            Err(error) if force && error.kind() == ErrorKind::NotFound => return Ok(()),
            lock => lock?,
        };
        let record = match folder.read() {
            // Something died in the middle of making it.
            Err(error) if error.kind() == ErrorKind::NotFound && force => {
                return fs::remove_dir_all(&folder.path).context(|| format!("Cannot remove {}", folder.path.display()));
            }
            record => record?,
        };
        let status = record.status();
        if !force && !matches!(status, Status::Stopped | Status::Created) {
            let text = format!("cannot delete container {id} that is not stopped: {}", status.as_str());
            return Err(state_error(text));
        }
        if let Some(process) = record.process() {
            record.cgroup.iter().for_each(HostCgroup::thaw);
            let reference = ProcessRef { container: id.to_owned(), exec: None };
            let request = Request::Signal { process: reference, signal: libc::SIGKILL, all: false };
            let asked = Link::connect(&record.sandbox).and_then(|mut link| link.agent_done(request));
            if asked.is_err() || !wait_end(&process, KILL) {
                let _ = pidfd_send_signal(&process, Signal::KILL);
                wait_end(&process, KILL);
            }
        }
        self.clean(&folder, &record)?;
        let state = hooks::state_json(&record.state(Status::Stopped));
        hooks::run(hooks::Moment::Poststop, &record.poststop, &record.hooks_place(), &state)
    }

    /// Takes away what a container whose process has ended leaves on the host.
    fn clean(&self, folder: &Folder, record: &Record) -> Result<(), Error> {
        let is_other = |other: &Record| other.id != record.id && other.sandbox == record.sandbox;
        let lives = |other: &Record| is_other(other) && other.process().is_some();
        let others = state::list(&self.root)?.iter().any(lives);
        record.cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.delete(others))?;
        if !others {
            machine_group::clean_up(&record.sandbox)?;
        }
        fs::remove_dir_all(&folder.path).context(|| format!("Cannot remove {}", folder.path.display()))
    }

    /// # Errors
    /// [`ErrorKind::State`] when it does not run, or does already what is asked.
    pub fn set_paused(&self, id: &str, paused: bool) -> Result<(), Error> {
        let folder = self.folder(id);
        let _lock = folder.lock()?;
        let mut record = folder.read()?;
        let status = record.status();
        match (paused, status) {
            (true, Status::Running | Status::Created) | (false, Status::Paused) => {}
            (true, _) => return Err(state_error(format!("container not running or created: {}", status.as_str()))),
            (false, _) => return Err(state_error("container not paused")),
        }
        let container = id.to_owned();
        let request = if paused { Request::Pause { container } } else { Request::Resume { container } };
        Link::connect(&record.sandbox)?.agent_done(request)?;
        record.paused = paused;
        folder.write(&record)
    }

    /// # Errors
    /// [`ErrorKind::State`] when it does not run.
    pub fn processes(&self, id: &str) -> Result<Vec<ProcessInfo>, Error> {
        let record = self.folder(id).read()?;
        if record.status() == Status::Stopped {
            return Ok(Vec::new());
        }
        match self.live(id)?.1.agent(Request::Processes { container: id.to_owned() })? {
            Reply::Processes(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// [`ErrorKind::State`] when it does not run.
    pub fn stats(&self, id: &str) -> Result<Stats, Error> {
        match self.live(id)?.1.agent(Request::Stats { container: id.to_owned() })? {
            Reply::Stats(stats) => Ok(*stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until the container's process has ended, at most so many milliseconds; whether it has.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn wait_end(&self, id: &str, milliseconds: u64) -> Result<bool, Error> {
        let Some(process) = self.folder(id).read()?.process() else { return Ok(true) };
        Ok(wait_end(&process, Duration::from_millis(milliseconds)))
    }

    /// Changes limits, in the guest and on the host.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when it does not run, [`ErrorKind::Unsupported`] for more than the machine has.
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<(), Error> {
        let folder = self.folder(id);
        let _lock = folder.lock()?;
        let (mut record, mut link) = self.live(id)?;
        let mut resources = resources.clone();
        record.bandwidth.complete(&mut resources);
        update::check_fits(&resources, record.vcpus, record.memory_mib)?;
        let encoded = serde_json::to_vec(&resources).context(|| "Cannot encode limits".into())?;
        link.agent_done(Request::Update { container: id.to_owned(), resources: encoded })?;
        if let Some(cgroup) = &mut record.cgroup {
            cgroup.update(&resources)?;
        }
        folder.write(&record)
    }
}

fn bundle_terminal(path: &Path) -> Result<bool, Error> {
    let text = fs::read(path)
        .kind(ErrorKind::Invalid, || format!("JSON specification file {} not found or not readable", path.display()))?;
    let spec: serde_json::Value =
        serde_json::from_slice(&text).kind(ErrorKind::Invalid, || format!("{} does not parse", path.display()))?;
    Ok(spec.pointer("/process/terminal").and_then(serde_json::Value::as_bool).unwrap_or(false))
}

/// What the container's process on the host is called beside the container's id: the beginning of its command. `docker top`
/// shows no more of a container than the host's ps knows.
fn shown_command(plan: &bundle::Plan) -> String {
    const SHOWN: usize = 200;
    let process: serde_json::Value = serde_json::from_slice(&plan.process).unwrap_or_default();
    let arguments = process.get("args").and_then(serde_json::Value::as_array);
    let arguments: Vec<&str> = arguments.into_iter().flatten().filter_map(serde_json::Value::as_str).collect();
    arguments.join(" ").chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// Its own messages go to a file, since it outlives its parent's terminal.
fn spawn_container(folder: &Folder, plan: &bundle::Plan, connection: OwnedFd) -> Result<Child, Error> {
    let exe = std::env::current_exe().context(|| "Cannot tell where this program lies".into())?;
    let program = exe.parent().unwrap_or(Path::new("/")).join("dewar-supervisor");
    let log = folder.path.join("log");
    let messages = fs::File::create(&log).context(|| format!("Cannot write {}", log.display()))?;
    let mut command = Command::new(&program);
    command
        .arg("oci")
        .arg(&plan.id)
        .arg(shown_command(plan))
        .stdin(connection)
        .stdout(Stdio::null())
        .stderr(messages)
        .current_dir("/");
    command.spawn().context(|| format!("Cannot start {}", program.display()))
}

/// A signal by name, with or without SIG, or number.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn parse_signal(text: &str) -> Result<i32, Error> {
    // The one that only asks.
    if text == "0" {
        return Ok(0);
    }
    crate::spec::parse::signal(text).map_err(|_| Error::new(ErrorKind::Invalid, format!("unknown signal {text:?}")))
}

/// Milliseconds of a duration as Go writes it: `5s`, `100ms`, `1m30s`.
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn parse_duration_ms(text: &str) -> Result<u64, Error> {
    let parse = || -> Option<u64> {
        let mut rest = text;
        let mut total = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, tail) = rest.split_at(digits);
            let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit);
            let scale = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(scale)?)?;
            rest = tail;
        }
        Some(total).filter(|total| *total > 0)
    };
    parse().ok_or_else(|| {
        Error::new(ErrorKind::Invalid, format!("invalid duration {text:?}: give one such as 5s or 100ms"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(parse_duration_ms("5s").ok(), Some(5000));
        assert_eq!(parse_duration_ms("1m30s250ms").ok(), Some(90_250));
        for wrong in ["", "5", "0s", "s", "5d", "99999999999999999999s"] {
            assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
