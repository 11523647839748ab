//! A container's process on the host, whose id is the container's `pid`.
//!
//! It lives exactly as long as the container's init in the guest and ends with its status; a signal to it reaches that
//! init; killed by SIGKILL, it takes the container with it, and with the last container the machine. It pumps the
//! container's streams. Its main thread does nothing but hold the container's view of the filesystem ([`super::view`]).

use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use dewar_protocol::{CreateContainer, ProcessRef, Reply, Request, Rootfs, UserSpec, WindowSize};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::bundle::{HostNetwork, Plan, Share};
use super::console::Console;
use super::host_cgroup::{CgroupManager, HostCgroup, Wanted};
use super::link::{Answer, Ask, Joined, Link, strange};
use super::machine_group::MachineGroup;
use super::proc_view::ProcServer;
use super::state::{Folder, Record, Status, process_start};
use super::update::Bandwidth;
use super::view::View;
use super::{hooks, network, sandbox, signals, view};
use crate::control::wire::Wire;
use crate::control::{ControlError, Exit, StreamMask, Streams};
use crate::supervisor::{Process, StreamPlan, lock, take_streams, unexpected};
use crate::{Error, ErrorKind, Paths, ResultExt, trace};

/// The one request of `create`; descriptors follow: the streams, or else the console socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Create {
    pub plan: Plan,
    pub folder: PathBuf,
    pub run: PathBuf,
    pub cgroups: CgroupManager,
    pub streams: StreamMask,
    pub console: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Created {
    pub notice: Option<String>,
}

/// Runs a container from its creation to its end. Standard input is the connection to `create`.
#[must_use]
pub fn run() -> ExitCode {
    // A session of its own: what kills the starter's terminal must not kill the container.
    let _ = rustix::process::setsid();
    // Whoever called may have left descriptors open: they are none of the container's.
    // SAFETY: nothing in this process has opened a descriptor above 2 yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    trace::mark("container process up");
    // SAFETY: descriptor 0 is this process's standard input, which nothing else uses.
    let starter = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let mut starter = Wire::new(starter);
    let created = create(&mut starter).and_then(Running::watch).and_then(Settling::finish);
    let created = created.map_err(|error| ControlError::from(&error));
    let failed = created.is_err();
    if starter.send(&created, &[]).is_err() || failed {
        return ExitCode::FAILURE;
    }
    drop(starter);
    trace::mark("created");
    loop {
        std::thread::park();
    }
}

struct Running {
    plan: Plan,
    joined: Joined,
    sandbox: PathBuf,
    link: Link,
    process: Process,
    console: Option<Console>,
    stderr: Option<OwnedFd>,
    folder: Folder,
    record: Record,
}

/// What is left to do when the container is made in the guest and watched over.
struct Settling {
    plan: Plan,
    notice: Option<String>,
    folder: Folder,
    record: Record,
}

/// What the container has on the host.
struct OnHost {
    cgroup: HostCgroup,
    resources: Option<LinuxResources>,
}

fn create(starter: &mut Wire) -> Result<Running, Error> {
    let request: Create = starter.receive()?.ok_or_else(|| Error::new(ErrorKind::Invalid, "The starter hung up"))?;
    let (mut streams, console) = if request.console {
        (Streams::default(), Some(UnixStream::from(starter.take_fd()?)))
    } else {
        (take_streams(starter, request.streams)?, None)
    };
    let plan = &request.plan;
    let resources: Option<LinuxResources> = plan
        .resources
        .as_deref()
        .map(serde_json::from_slice)
        .transpose()
        .kind(ErrorKind::Invalid, || "linux.resources does not parse".into())?;
    let wanted = Wanted {
        path: plan.cgroups_path.as_deref(),
        id: &plan.id,
        pid: own_pid(),
        resources: resources.as_ref(),
        annotations: &plan.annotations,
    };
    let host = OnHost { cgroup: HostCgroup::create(&wanted, request.cgroups)?, resources };
    let made = (|| {
        enter_network(&plan.network)?;
        let console = console.map(|socket| Console::open(&socket, console_size(plan))).transpose()?;
        let stderr = streams.stderr.as_ref().and_then(|fd| fd.try_clone().ok());
        if let Some(console) = &console {
            streams = Streams { stdin: Some(console.duplicate()?), stdout: Some(console.duplicate()?), stderr: None };
        }
        start(&request, &host, streams, console, stderr)
    })();
    if made.is_err() {
        host.cgroup.leave_and_delete();
    }
    made
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

fn console_size(plan: &Plan) -> Option<WindowSize> {
    let process: serde_json::Value = serde_json::from_slice(&plan.process).ok()?;
    let side = |name: &str| process.get("consoleSize")?.get(name)?.as_u64().and_then(|n| u16::try_from(n).ok());
    Some(WindowSize { rows: side("height")?, columns: side("width")? })
}

/// What wires networks (CNI, netavark, docker's hook) does it in the namespace of this process.
fn enter_network(network: &HostNetwork) -> Result<(), Error> {
    match network {
        HostNetwork::Host => Ok(()),
        HostNetwork::New => {
            // SAFETY: this process has one thread.
            let made = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
            // Without privileges nobody could wire it either: the guest has a namespace of its own all the same.
            if made == Err(rustix::io::Errno::PERM) && !rustix::process::geteuid().is_root() {
                return Ok(());
            }
            made.context(|| "Cannot make a network namespace".into())
        }
        HostNetwork::Path(path) => {
            let failed = || format!("Cannot enter the network namespace {}", path.display());
            let namespace = fs::File::open(path).kind(ErrorKind::Invalid, failed)?;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).kind(ErrorKind::Invalid, failed)
        }
    }
}

fn start(
    request: &Create,
    host: &OnHost,
    streams: Streams,
    console: Option<Console>,
    stderr: Option<OwnedFd>,
) -> Result<Running, Error> {
    let plan = &request.plan;
    let (sandbox, mut link) = connect(request, host)?;
    link.send(&Ask::Join { container: plan.id.clone() }, &[])?;
    // While the guest boots.
    let mut record = record(plan, host, &sandbox)?;
    let folder = Folder { path: request.folder.clone() };
    folder.write(&record)?;
    let state = hooks::state_json(&record.state(Status::Creating));
    hooks::run(hooks::Moment::Prestart, &plan.hooks.prestart, &record.hooks_place(), &state)?;
    hooks::run(hooks::Moment::CreateRuntime, &plan.hooks.create_runtime, &record.hooks_place(), &state)?;
    if plan.network != HostNetwork::Host {
        network::check_own()?;
    }
    let joined = match link.receive()? {
        Answer::Joined(joined) => joined,
        other => return Err(strange(&other)),
    };
    trace::mark("sandbox joined");
    for share in &plan.shares {
        let tree = share_tree(share)?;
        // Mount points are made in the root, also in one that is to be read-only.
        let read_only = share.read_only && !share.is_root();
        link.ask_done(&Ask::Share { name: share.name.clone(), read_only }, &[tree.as_fd()])?;
    }
    // From here on signals are for the container.
    signals::block_all().context(|| "Cannot block signals".into())?;
    let size = console.as_ref().map(|console| console.size().unwrap_or_default());
    let streams = StreamPlan::for_exec(streams, size);
    let state = hooks::state_json(&record.state(Status::Created));
    link.send(&Ask::Agent(create_request(plan, &streams, state)), &[])?;
    let process = streams.connect(&joined.vsock)?;
    let made = link.receive().and_then(|answer| match answer {
        Answer::Agent(Reply::Created { .. }) => Ok(()),
        Answer::Agent(other) => Err(unexpected(&other)),
        other => Err(strange(&other)),
    });
    if let Err(error) = made {
        process.abandon();
        return Err(error);
    }
    for root in plan.shares.iter().filter(|share| share.is_root() && share.read_only) {
        if let Err(error) = link.ask_done(&Ask::Seal { name: root.name.clone() }, &[]) {
            process.abandon();
            return Err(error);
        }
    }
    record.engine = joined.engine;
    record.vcpus = joined.vcpus;
    record.memory_mib = joined.memory_mib;
    Ok(Running { plan: plan.clone(), joined, sandbox, link, process, console, stderr, folder, record })
}

/// What the server is given of a share. Who may not copy mounts shares the directory as it is.
fn share_tree(share: &Share) -> Result<OwnedFd, Error> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    if share.id_maps.is_some() {
        let failed = || format!("Cannot map the ids of {}: its filesystem or this user may not", share.path.display());
        return view::clone_tree(share).context(failed);
    }
    view::clone_tree(share)
        .or_else(|_| openat(CWD, &share.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()))
        .context(|| format!("Cannot share {}", share.path.display()))
}

fn create_request(plan: &Plan, streams: &StreamPlan, state: Vec<u8>) -> Request {
    Request::Create(Box::new(CreateContainer {
        id: plan.id.clone(),
        spec: plan.spec.clone(),
        rootfs: Rootfs::Shared { path: plan.guest_root.clone() },
        stdio: streams.stdio(),
        user: UserSpec::Spec,
        files: Vec::new(),
        init: false,
        joins: plan.joins.clone(),
        hook_state: state,
    }))
}

/// The sandbox's folder, and the connection that stands for this container.
fn connect(request: &Create, host: &OnHost) -> Result<(PathBuf, Link), Error> {
    if let Some(sandbox) = &request.plan.joined_sandbox {
        return Ok((sandbox.clone(), Link::connect(sandbox)?));
    }
    let base = request.run.join("oci");
    crate::paths::make_private_dir(&base)?;
    let mut bytes = [0; 6];
    crate::control::fill_random(&mut bytes);
    let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let dir = base.join(name);
    crate::paths::make_private_dir(&dir)?;
    let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
    // SAFETY: this process has one thread, so that the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context(|| "Cannot fork the sandbox's process".into()),
        0 => {
            drop(ours);
            let group = MachineGroup::of_first(&dir, host.cgroup.clone(), host.resources.clone());
            run_sandbox(request, group, &dir, theirs);
            std::process::exit(0)
        }
        _ => Ok((dir, Link::new(ours))),
    }
}

fn run_sandbox(request: &Create, group: MachineGroup, dir: &Path, first: UnixStream) {
    let _ = rustix::process::setsid();
    let prepared = keep_only(&first).and_then(|()| Paths::of_program(request.run.clone(), request.run.clone()));
    match prepared {
        Ok(paths) => sandbox::run(&paths, dir, &request.plan.sandbox, group, Wire::new(first)),
        Err(error) => sandbox::refuse(Wire::new(first), dir, &error),
    }
}

/// Closes every descriptor but the error output, one and the trace's: streams that the sandbox held would never end.
fn keep_only(kept: &UnixStream) -> Result<(), Error> {
    use std::os::fd::AsRawFd;
    super::leave_input_and_output()?;
    let mut kept: Vec<_> = std::iter::once(kept.as_fd()).chain(trace::descriptor()).map(|fd| fd.as_raw_fd()).collect();
    kept.sort_unstable();
    let mut next = 3;
    for fd in kept {
        let fd = libc::c_uint::try_from(fd).context(|| "A descriptor is negative".into())?;
        if fd > next {
            // SAFETY: whatever lies beside the kept ones belongs to values of the parent that this process never uses
            // again; it ends without dropping them.
            unsafe { libc::close_range(next, fd - 1, 0) };
        }
        next = fd + 1;
    }
    // SAFETY: as above.
    unsafe { libc::close_range(next, libc::c_uint::MAX, 0) };
    Ok(())
}

fn record(plan: &Plan, host: &OnHost, sandbox: &Path) -> Result<Record, Error> {
    let pid = own_pid();
    let (pid_start, _) =
        process_start(pid).ok_or_else(|| Error::new(ErrorKind::Internal, "Cannot read this process's own state"))?;
    let process = serde_json::from_slice(&plan.process).context(|| "The process does not parse".into())?;
    let mappings = serde_json::from_slice(&plan.mappings).context(|| "The id mappings do not parse".into())?;
    Ok(Record {
        id: plan.id.clone(),
        oci_version: plan.oci_version.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.clone(),
        annotations: plan.annotations.clone(),
        created: super::time::rfc3339_now(),
        owner: super::time::user_name(),
        pid,
        pid_start,
        sandbox: sandbox.to_path_buf(),
        engine: plan.sandbox.engine,
        vcpus: plan.sandbox.vcpus,
        memory_mib: plan.sandbox.memory_mib,
        creating: true,
        early_hooks: plan.hooks.is_early(),
        started: false,
        paused: false,
        poststart: plan.hooks.poststart.clone(),
        poststop: plan.hooks.poststop.clone(),
        cgroup: Some(host.cgroup.clone()),
        bandwidth: Bandwidth::of(host.resources.as_ref()),
        process,
        notify: plan.notify,
        mappings,
        terminal: plan.terminal,
    })
}

impl Running {
    /// Starts the threads that pass signals on and wait for the end, which ends this process.
    fn watch(self) -> Result<Settling, Error> {
        let Self { plan, joined, sandbox, link, process, console, stderr, folder, record } = self;
        let reference = ProcessRef { container: plan.id.clone(), exec: None };
        let terminal = console.is_some();
        pass_signals(sandbox.clone(), reference.clone(), console)?;
        let mut waiting = Link::connect(&sandbox)?;
        let stderr = Arc::new(Mutex::new(stderr));
        if !terminal {
            let copy = Arc::clone(&stderr);
            process.at_end_of_stderr(move || let_go(sandbox, copy));
        }
        let wait = move || {
            let exit = match waiting.agent(Request::Wait { process: reference }) {
                Ok(Reply::Exited(status)) => Exit { code: status.code, oom_killed: status.oom_killed, error: None },
                Ok(other) => Exit { code: 137, oom_killed: false, error: Some(unexpected(&other).chain()) },
                Err(error) => Exit { code: 137, oom_killed: false, error: Some(error.chain()) },
            };
            finish(exit, link, &process, &stderr)
        };
        std::thread::Builder::new().name("wait".into()).spawn(wait).context(|| "Cannot start a thread".into())?;
        Ok(Settling { plan, notice: joined.notice, folder, record })
    }
}

impl Settling {
    /// Runs the hooks that belong between the making of the mounts and the change of the root, and tells of a container
    /// that is created. Threads that were started before keep the host's view of the filesystem.
    fn finish(mut self) -> Result<Created, Error> {
        let hooks = &self.plan.hooks.create_container;
        // Its thread keeps the host's view, in which the sandbox is to be found.
        let processes = ProcServer::prepare(self.record.sandbox.clone(), self.plan.id.clone());
        let view = match view::show(&self.plan.shares) {
            Ok(view) => {
                show_processes(processes, &view);
                Some(view)
            }
            Err(error) if hooks.is_empty() => {
                // Without privileges there is no namespace to be had; and nobody who could enter it.
                eprintln!("dewar-supervisor: the container's view of the filesystem is not shown: {error}");
                None
            }
            Err(error) => {
                return Err(error)
                    .context(|| "Cannot make the mount namespace that createContainer hooks run in".into());
            }
        };
        let state = hooks::state_json(&self.record.state(Status::Creating));
        // Where runc runs them.
        let place = hooks::Place::of(&self.record.rootfs, &self.record.annotations);
        hooks::run(hooks::Moment::CreateContainer, hooks, &place, &state)?;
        self.record.creating = false;
        // From the container's root the folder is not to be reached.
        self.folder.write(&self.record)?;
        if let Some(Err(error)) = view.map(|view| view.pivot()) {
            eprintln!("dewar-supervisor: the container's root is not this process's: {error}");
        }
        Ok(Created { notice: self.notice })
    }
}

/// Puts what engines read of the processes where they look for it. Without it the container is none the worse.
fn show_processes(processes: Result<ProcServer, Error>, view: &View) {
    // A root without the directory has no container's processes to show.
    let Ok(target) = view.directory(Path::new("/proc")) else { return };
    let mounted = processes.map_err(|error| error.chain());
    let mounted = mounted.and_then(|server| server.mount(target.as_fd()).map_err(|error| error.to_string()));
    if let Err(error) = mounted {
        eprintln!("dewar-supervisor: the container's processes are not shown to engines: {error}");
    }
}

/// A container that closed its standard error holds nobody up who reads there. When it was the end of the machine that
/// closed it, and no guest answers, there is more to be said.
fn let_go(sandbox: PathBuf, stderr: Arc<Mutex<Option<OwnedFd>>>) {
    let ask = move || {
        if Link::connect(&sandbox).and_then(|mut link| link.agent(Request::GuestInfo)).is_ok() {
            *lock(&stderr) = None;
        }
    };
    if let Err(error) = std::thread::Builder::new().name("stderr".into()).spawn(ask) {
        eprintln!("dewar-supervisor: cannot start a thread: {error}");
    }
}

/// Delivers what the container wrote, lets the sandbox settle, and ends with the container's status.
fn finish(exit: Exit, mut link: Link, process: &Process, stderr: &Mutex<Option<OwnedFd>>) -> ! {
    if let Some(text) = &exit.error {
        eprintln!("dewar-supervisor: {text}");
        if let Some(stderr) = &*lock(stderr) {
            let _ = rustix::io::write(stderr, format!("dewar-oci: {text}\n").as_bytes());
        }
        process.abandon();
    } else {
        process.wait_output();
    }
    if let Err(error) = link.ask(&Ask::Leave, &[]) {
        eprintln!("dewar-supervisor: {}", error.chain());
    }
    std::process::exit(i32::from(exit.code))
}

/// Signals to this process are for the container's; SIGWINCH is a new size of its terminal.
pub(super) fn pass_signals(sandbox: PathBuf, process: ProcessRef, console: Option<Console>) -> Result<(), Error> {
    let pass = move |signal| {
        let request = match &console {
            Some(console) if signal == libc::SIGWINCH => {
                Request::Resize { process: process.clone(), size: console.size().unwrap_or_default() }
            }
            _ => Request::Signal { process: process.clone(), signal, all: false },
        };
        if let Err(error) = Link::connect(&sandbox).and_then(|mut link| link.agent_done(request)) {
            eprintln!("dewar-supervisor: signal {signal} did not arrive: {}", error.chain());
        }
    };
    signals::take_all(pass).context(|| "Cannot start a thread".into())
}
