//! The sandbox: one process that owns a machine, its shared directories and the connection to its guest's agent.
//!
//! It is forked by the first container's process ([`super::monitor`]) and lives as long as there is a member: each
//! container's process holds a connection that stands for it. A member that breaks off, however it died, is deleted in the
//! guest; with the last one the machine ends and nothing is left. Other commands connect for single calls. It trusts
//! nothing that comes from the guest.
//!
//! The main thread alone waits for the machine's processes, so that it alone may name them by their ids; the threads of
//! the connections send it on [`Errand`]s.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dewar_protocol::{Reply, Request};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use serde::{Deserialize, Serialize};

use super::link::{Answer, Ask, Joined, SOCKET};
use super::machine_group::MachineGroup;
use crate::control::ControlError;
use crate::control::wire::Wire;
use crate::engine::{self, EngineChoice, Machine, MachineSpec};
use crate::shared_fs::SharedFs;
use crate::supervisor::{Agent, accept, explain, greet, lock, rpc_socket, with_console};
use crate::{Error, ErrorKind, Paths, ResultExt, trace};

/// Seconds that a guest gets to delete a container, and to sync, before the machine is killed.
const PATIENCE: u64 = 10;

/// The machine that a sandbox runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxSpec {
    pub engine: EngineChoice,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    /// Appended to the kernel's command line.
    pub kernel_parameters: Vec<String>,
    pub vcpus: u8,
    pub memory_mib: u64,
}

struct Sandbox {
    agent: Agent,
    shared: SharedFs,
    joined: Joined,
    members: Mutex<Members>,
    /// Why the machine ended, once it has.
    fate: Mutex<Option<String>>,
    fate_known: Condvar,
    /// The machine has been asked to end: calls that break off with it need no reason.
    ending: AtomicBool,
    errands: Mutex<Vec<(Errand, Sender<()>)>>,
    /// Becomes readable when there is one.
    bell: std::os::fd::OwnedFd,
    /// How many requests have come whose answers have not been sent.
    answering: Mutex<usize>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct Members {
    count: usize,
    /// The container in whose group on the host the machine is.
    host: Option<String>,
}

/// What the main thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    /// The container in whose group the machine is has ended, and others live.
    Part,
    /// The last container has gone.
    End,
}

/// One request between its coming and its answer's sending.
struct Answering<'a>(&'a Sandbox);

impl<'a> Answering<'a> {
    fn begin(sandbox: &'a Sandbox) -> Self {
        *lock(&sandbox.answering) += 1;
        Self(sandbox)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let mut answering = lock(&self.0.answering);
        *answering = answering.saturating_sub(1);
        self.0.answered.notify_all();
    }
}

/// Runs a sandbox to its end. `first` is its first member's connection.
pub(super) fn run(paths: &Paths, dir: &Path, spec: &SandboxSpec, mut group: MachineGroup, wire: Wire) {
    let started = start(paths, dir, spec);
    let (sandbox, mut machine, listener) = match started {
        Ok(started) => started,
        Err(error) => return refuse(wire, dir, &error),
    };
    serve(&sandbox, wire);
    let accepting = Arc::clone(&sandbox);
    spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            serve(&accepting, Wire::new(socket));
        }
    });
    attend(&sandbox, &mut *machine, &mut group);
    machine.wait();
    trace::mark("machine gone");
    sandbox.settle();
    let _ = fs::remove_dir_all(dir);
}

/// Tells the first member why there is no sandbox, and leaves nothing of it.
pub(super) fn refuse(mut first: Wire, dir: &Path, error: &Error) {
    let _ = first.receive::<Ask>();
    let refused: Result<Answer, ControlError> = Err(ControlError::from(error));
    let _ = first.send(&refused, &[]);
    let _ = fs::remove_dir_all(dir);
}

type Started = (Arc<Sandbox>, Box<dyn Machine>, UnixListener);

fn start(paths: &Paths, dir: &Path, spec: &SandboxSpec) -> Result<Started, Error> {
    let (engine, notice) = engine::choose(paths, spec.engine)?;
    let kernel = spec.kernel.clone().map_or_else(|| paths.lib_file("vmlinux"), Ok)?;
    let initrd = spec.initrd.clone().map_or_else(|| paths.lib_file("initramfs.cpio"), Ok)?;
    let listener = listen(&dir.join(SOCKET))?;
    let shared = SharedFs::start(paths, dir)?;
    let machine = MachineSpec {
        dir,
        kernel: &kernel,
        initrd: &initrd,
        kernel_parameters: &spec.kernel_parameters,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        disks: Vec::new(),
        shared_fs: Some(&shared),
    };
    let rpc = rpc_socket(&machine.vsock_path());
    let agent_listener = listen(&rpc)?;
    let mut machine = engine.start(&machine)?;
    trace::mark("VMM spawned");
    let agent = accept(&agent_listener, &*machine).and_then(greet);
    let _ = fs::remove_file(&rpc);
    let agent = agent.map_err(|e| explain(e, &mut *machine))?;
    trace::mark("agent greeted");
    let joined = Joined {
        engine: engine.choice(),
        notice,
        vcpus: spec.vcpus,
        memory_mib: spec.memory_mib,
        vsock: machine.vsock_path().to_path_buf(),
    };
    let bell = eventfd(0, EventfdFlags::CLOEXEC).context(|| "Cannot make an event".into())?;
    let sandbox = Sandbox {
        agent,
        shared,
        joined,
        members: Mutex::default(),
        fate: Mutex::new(None),
        fate_known: Condvar::new(),
        ending: AtomicBool::new(false),
        errands: Mutex::default(),
        bell,
        answering: Mutex::new(0),
        answered: Condvar::new(),
    };
    Ok((Arc::new(sandbox), machine, listener))
}

fn listen(path: &Path) -> Result<UnixListener, Error> {
    UnixListener::bind(path).context(|| format!("Cannot listen on {}", path.display()))
}

/// Goes on errands until the last member has gone, whose machine is then killed.
fn attend(sandbox: &Sandbox, machine: &mut dyn Machine, group: &mut MachineGroup) {
    let mut ended = false;
    loop {
        let mut fds =
            [PollFd::new(&sandbox.bell, PollFlags::IN), PollFd::from_borrowed_fd(machine.ended_fd(), PollFlags::IN)];
        // The members learn of the machine's end from their calls, and leave.
        let watched = if ended { &mut fds[..1] } else { &mut fds[..] };
        match poll(watched, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => {
                eprintln!("dewar-supervisor: cannot wait for the machine: {error}");
                return machine.kill();
            }
            Ok(_) => {}
        }
        if fds[0].revents().is_empty() {
            ended = true;
            let reason = machine.wait().reason;
            let text = with_console(&format!("The machine ended before the container: {reason}"), machine);
            *lock(&sandbox.fate) = Some(text);
            sandbox.fate_known.notify_all();
            continue;
        }
        let _ = rustix::io::read(&sandbox.bell, &mut [0; 8]);
        let errands = std::mem::take(&mut *lock(&sandbox.errands));
        for (errand, done) in errands {
            if let Err(error) = go(errand, sandbox, machine, group) {
                eprintln!("dewar-supervisor: the machine stays in its group: {}", error.chain());
            }
            // Who waited may have lost its patience.
            let _ = done.send(());
            if errand == Errand::End {
                return;
            }
        }
    }
}

fn go(errand: Errand, sandbox: &Sandbox, machine: &dyn Machine, group: &mut MachineGroup) -> Result<(), Error> {
    let mut pids = machine.pids();
    pids.extend(sandbox.shared.pid());
    match errand {
        Errand::Part => group.part(&pids),
        Errand::End => {
            let mut released = Ok(());
            if group.exists() {
                // What runs stays within its limits.
                machine.halt();
                trace::mark("guest halted");
                released = group.release(&pids);
                trace::mark("group left");
            }
            machine.kill();
            released
        }
    }
}

/// What one connection stands for.
#[derive(Default)]
struct Member {
    container: Option<String>,
    shares: Vec<String>,
}

/// Answers one connection in a thread of its own.
fn serve(sandbox: &Arc<Sandbox>, mut wire: Wire) {
    let sandbox = Arc::clone(sandbox);
    spawn(move || {
        let mut member = Member::default();
        while let Ok(Some(ask)) = wire.receive::<Ask>() {
            let _answering = Answering::begin(&sandbox);
            let answer = sandbox.answer(ask, &mut member, &mut wire);
            let answer: Result<Answer, ControlError> = answer.map_err(|e| ControlError::from(&sandbox.explain(e)));
            if wire.send(&answer, &[]).is_err() {
                break;
            }
        }
        if let Err(error) = sandbox.leave(&mut member) {
            eprintln!("dewar-supervisor: {}", error.chain());
        }
    });
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("sandbox".into()).spawn(work) {
        eprintln!("dewar-supervisor: cannot start a thread: {error}");
    }
}

impl Sandbox {
    fn answer(&self, ask: Ask, member: &mut Member, wire: &mut Wire) -> Result<Answer, Error> {
        match ask {
            Ask::Agent(request) => self.agent.call(request).map(Answer::Agent),
            Ask::Share { name, read_only } => {
                let tree = wire.take_fd()?;
                self.shared.add(&name, tree.as_fd(), read_only)?;
                member.shares.push(name);
                Ok(Answer::Done)
            }
            Ask::Seal { name } => self.shared.seal(&name).map(|()| Answer::Done),
            Ask::Join { container } => {
                if member.container.is_none() {
                    let mut members = lock(&self.members);
                    if members.count == 0 {
                        members.host = Some(container.clone());
                    }
                    members.count += 1;
                    member.container = Some(container);
                }
                Ok(Answer::Joined(self.joined.clone()))
            }
            Ask::Info => Ok(Answer::Joined(self.joined.clone())),
            Ask::Leave => self.leave(member).map(|()| Answer::Done),
        }
    }

    /// Takes a member's container and shares down; the last one's guest also writes back what it holds.
    fn leave(&self, member: &mut Member) -> Result<(), Error> {
        let Some(container) = member.container.take() else { return Ok(()) };
        let deleted = self.agent.call_for(Request::Delete { container: container.clone() }, PATIENCE);
        for name in member.shares.drain(..) {
            if let Err(error) = self.shared.remove(&name) {
                eprintln!("dewar-supervisor: {}", error.chain());
            }
        }
        trace::mark("container deleted in the guest");
        let (last, host) = {
            let mut members = lock(&self.members);
            members.count = members.count.saturating_sub(1);
            (members.count == 0, members.host.take_if(|host| *host == container).is_some())
        };
        let mut settled =
            deleted.map(|_| ()).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) });
        if last {
            self.ending.store(true, Ordering::Release);
            let synced = self.agent.call_for(Request::Shutdown, PATIENCE);
            trace::mark("guest synced");
            settled = settled.and(match synced {
                Ok(Reply::Done) => Ok(()),
                Ok(other) => Err(crate::supervisor::unexpected(&other)),
                Err(error) => Err(error),
            });
            self.send_on(Errand::End)?;
        } else if host {
            self.send_on(Errand::Part)?;
        }
        settled
    }

    /// Has the main thread do something, and waits until it has.
    fn send_on(&self, errand: Errand) -> Result<(), Error> {
        let (done, is_done) = channel();
        lock(&self.errands).push((errand, done));
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).context(|| "Cannot wake the sandbox".into())?;
        let patience = Duration::from_secs(PATIENCE);
        is_done.recv_timeout(patience).context(|| "The sandbox's main thread does not answer".into())
    }

    /// Waits until what was asked is answered: whoever started a command that ended at once is owed "started", though the
    /// command's end has ended the sandbox.
    fn settle(&self) {
        let patience = Duration::from_secs(PATIENCE);
        drop(self.answered.wait_timeout_while(lock(&self.answering), patience, |answering| *answering > 0));
    }

    /// When the machine has just ended, its own reason is the better one.
    fn explain(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Machine || self.ending.load(Ordering::Acquire) {
            return error;
        }
        let moment = Duration::from_secs(1);
        let waited = self.fate_known.wait_timeout_while(lock(&self.fate), moment, |fate| fate.is_none());
        let (fate, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        fate.as_ref().map_or(error, |text| Error::new(ErrorKind::Machine, text.clone()))
    }
}
