//! The answering side of control connections: one thread each, requests strictly in turn.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use dewar_protocol::{ExecProcess, ProcessRef, Reply, Request, UserSpec, WindowSize};

use super::agent::{Agent, unexpected};
use super::lock;
use super::process::{Process, StreamPlan};
use crate::container::{Container, ContainerState, Status};
use crate::control::wire::Wire;
use crate::control::{ControlError, ControlReply, ControlRequest, Exit, StreamMask, Streams};
use crate::{Error, ErrorKind};

/// Seconds a container gets to die of SIGKILL before its machine is killed.
const KILL_SECONDS: u64 = 10;
/// Seconds that the last answers may take.
const SETTLE_SECONDS: u64 = 10;

/// What the threads of one supervisor share.
pub(super) struct Sandbox {
    pub(super) container: Container,
    pub(super) agent: Agent,
    pub(super) init: Process,
    state: Mutex<ContainerState>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    vsock: PathBuf,
    /// The machine's pidfd.
    machine: OwnedFd,
    /// Answers that clients are owed; the process ends when there is none.
    owed: Mutex<usize>,
    settled: Condvar,
}

impl Sandbox {
    pub(super) fn new(
        container: Container,
        agent: Agent,
        init: Process,
        state: ContainerState,
        vsock: PathBuf,
        machine: OwnedFd,
    ) -> Self {
        let (state, execs, owed) = (Mutex::new(state), Mutex::default(), Mutex::default());
        Self { container, agent, init, state, execs, vsock, machine, owed, settled: Condvar::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, ContainerState> {
        lock(&self.state)
    }

    /// Tells everybody who waits, and returns when all answers are sent. A client that neither asks nor hangs up (it may
    /// be stopped) is not waited for longer than [`SETTLE_SECONDS`].
    pub(super) fn finish(&self, exit: Exit) {
        for process in lock(&self.execs).values() {
            process.set_exit(exit.clone());
        }
        self.init.set_exit(exit);
        let patience = Duration::from_secs(SETTLE_SECONDS);
        let owed = lock(&self.owed);
        drop(self.settled.wait_timeout_while(owed, patience, |owed| *owed > 0));
    }

    fn owe(&self) {
        *lock(&self.owed) += 1;
    }

    fn settle(&self) {
        *lock(&self.owed) -= 1;
        self.settled.notify_all();
    }

    fn process_ref(&self, exec: Option<String>) -> ProcessRef {
        ProcessRef { container: self.container.config.id.clone(), exec }
    }

    fn exec_of(&self, id: &str) -> Result<Arc<Process>, Error> {
        let found = lock(&self.execs).get(id).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("No such exec instance: {id}")))
    }

    fn call_done(&self, request: Request) -> Result<ControlReply, Error> {
        match self.agent.call(request)? {
            Reply::Done => Ok(ControlReply::Done),
            other => Err(unexpected(&other)),
        }
    }

    fn container_id(&self) -> String {
        self.container.config.id.clone()
    }

    /// Freezes or thaws, and writes the state.
    fn set_paused(&self, paused: bool) -> Result<ControlReply, Error> {
        let mut state = self.state();
        let name = &self.container.config.name;
        let (from, to) = if paused { (Status::Running, Status::Paused) } else { (Status::Paused, Status::Running) };
        if state.status != from {
            let text = if paused { "is already paused" } else { "is not paused" };
            return Err(Error::new(ErrorKind::State, format!("Container {name} {text}")));
        }
        let container = self.container_id();
        let request = if paused { Request::Pause { container } } else { Request::Resume { container } };
        // The state is locked meanwhile: a guest that does not answer must not hold up a stop.
        self.agent.call_for(request, KILL_SECONDS)?;
        state.status = to;
        self.container.write_state(&state)?;
        Ok(ControlReply::Done)
    }

    /// Changes limits in the guest, and then for later starts.
    fn update(&self, resources: Vec<u8>) -> Result<ControlReply, Error> {
        // One at a time: two must not lose each other's changes in the file.
        let _state = self.state();
        let request = Request::Update { container: self.container_id(), resources: resources.clone() };
        match self.agent.call_for(request, KILL_SECONDS)? {
            Reply::Done => {}
            other => return Err(unexpected(&other)),
        }
        self.container.change_limits(&resources)?;
        Ok(ControlReply::Done)
    }

    fn kill_machine(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.machine, rustix::process::Signal::KILL);
    }

    fn stop(&self, signal: Option<i32>, timeout: Option<u32>) -> Exit {
        let config = &self.container.config;
        let first = Request::Signal {
            process: self.process_ref(None),
            signal: signal.unwrap_or(config.stop_signal),
            all: false,
        };
        // The container may end at any moment, so that errors here mean little; what counts is that it ends.
        let _ = self.agent.call_for(first, KILL_SECONDS);
        let patience = Duration::from_secs(timeout.unwrap_or(config.stop_timeout).into());
        if let Some(exit) = self.init.wait_timeout(patience) {
            return exit;
        }
        if self.state().status == Status::Paused {
            let _ = self.agent.call_for(Request::Resume { container: self.container_id() }, KILL_SECONDS);
        }
        let kill = Request::Signal { process: self.process_ref(None), signal: libc::SIGKILL, all: false };
        let _ = self.agent.call_for(kill, KILL_SECONDS);
        if let Some(exit) = self.init.wait_timeout(Duration::from_secs(KILL_SECONDS)) {
            return exit;
        }
        self.kill_machine();
        self.init.wait()
    }
}

/// Accepts control connections until the process ends.
pub(super) fn listen(sandbox: &Arc<Sandbox>, listener: UnixListener) {
    let sandbox = Arc::clone(sandbox);
    spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            serve_connection(&sandbox, Wire::new(socket), false);
        }
    });
}

/// Answers one connection in a thread of its own. `started`: it has just been told that a process runs, and may ask how
/// that ended.
pub(super) fn serve_connection(sandbox: &Arc<Sandbox>, mut wire: Wire, started: bool) {
    let sandbox = Arc::clone(sandbox);
    if started {
        sandbox.owe();
    }
    spawn(move || {
        // Who was told that a process runs is owed its end, even when that comes before the question.
        let mut owes_end = started;
        while let Ok(Some(request)) = wire.receive::<ControlRequest>() {
            sandbox.owe();
            let result = answer(&sandbox, request, &mut wire);
            let (begins, ends) =
                (matches!(result, Ok(ControlReply::ExecStarted { .. })), matches!(result, Ok(ControlReply::Exited(_))));
            let reply: Result<ControlReply, ControlError> = result.map_err(|e| ControlError::from(&e));
            let sent = wire.send(&reply, &[]);
            if begins && !owes_end {
                owes_end = true;
                sandbox.owe();
            } else if ends && owes_end {
                owes_end = false;
                sandbox.settle();
            }
            sandbox.settle();
            if sent.is_err() {
                break;
            }
        }
        if owes_end {
            sandbox.settle();
        }
    });
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name("control".into()).spawn(work) {
        eprintln!("dewar-supervisor: cannot start a thread: {error}");
    }
}

/// Takes the descriptors that a request announced.
pub(crate) fn take_streams(wire: &mut Wire, mask: StreamMask) -> Result<Streams, Error> {
    let mut take = |wanted: bool| if wanted { wire.take_fd().map(Some) } else { Ok(None) };
    Ok(Streams { stdin: take(mask.stdin)?, stdout: take(mask.stdout)?, stderr: take(mask.stderr)? })
}

fn answer(sandbox: &Arc<Sandbox>, request: ControlRequest, wire: &mut Wire) -> Result<ControlReply, Error> {
    match request {
        ControlRequest::Start { .. } => Err(Error::new(ErrorKind::State, "The container is running already")),
        ControlRequest::Attach { streams } => {
            let streams = take_streams(wire, streams)?;
            sandbox.init.attach(streams, false)?;
            Ok(ControlReply::Done)
        }
        ControlRequest::Exec { spec, user, size, streams } => {
            let streams = take_streams(wire, streams)?;
            exec(sandbox, spec, user, StreamPlan::for_exec(streams, size))
        }
        ControlRequest::Wait { exec: None } => Ok(ControlReply::Exited(sandbox.init.wait())),
        ControlRequest::Wait { exec: Some(id) } => {
            let process = sandbox.exec_of(&id)?;
            let exit = process.wait();
            lock(&sandbox.execs).remove(&id);
            Ok(ControlReply::Exited(exit))
        }
        ControlRequest::Signal { exec, signal } => {
            sandbox.call_done(Request::Signal { process: sandbox.process_ref(exec), signal, all: false })
        }
        ControlRequest::Stop { signal, timeout } => Ok(ControlReply::Exited(sandbox.stop(signal, timeout))),
        ControlRequest::Resize { exec, size } => resize(sandbox, exec, size),
        ControlRequest::Stats => match sandbox.agent.call(Request::Stats { container: sandbox.container_id() })? {
            Reply::Stats(stats) => Ok(ControlReply::Stats(stats)),
            other => Err(unexpected(&other)),
        },
        ControlRequest::Top => match sandbox.agent.call(Request::Processes { container: sandbox.container_id() })? {
            Reply::Processes(rows) => Ok(ControlReply::Top(rows)),
            other => Err(unexpected(&other)),
        },
        ControlRequest::Pause => sandbox.set_paused(true),
        ControlRequest::Unpause => sandbox.set_paused(false),
        ControlRequest::Update { resources } => sandbox.update(resources),
    }
}

fn resize(sandbox: &Sandbox, exec: Option<String>, size: WindowSize) -> Result<ControlReply, Error> {
    sandbox.call_done(Request::Resize { process: sandbox.process_ref(exec), size })
}

fn exec(sandbox: &Arc<Sandbox>, spec: Vec<u8>, user: UserSpec, plan: StreamPlan) -> Result<ControlReply, Error> {
    if sandbox.state().status == Status::Paused {
        let name = &sandbox.container.config.name;
        let text = format!("Container {name} is paused, unpause the container before exec");
        return Err(Error::new(ErrorKind::State, text));
    }
    let id = crate::container::new_id();
    let process = sandbox.process_ref(Some(id.clone()));
    let request = ExecProcess { process, spec, stdio: plan.stdio(), user, cgroup: None };
    let starting = sandbox.agent.begin(Request::Exec(Box::new(request)))?;
    let process = Arc::new(plan.connect(&sandbox.vsock)?);
    let started = starting.wait().and_then(|reply| match reply {
        Reply::Created { .. } => Ok(()),
        other => Err(unexpected(&other)),
    });
    if let Err(error) = started {
        process.abandon();
        return Err(error);
    }
    lock(&sandbox.execs).insert(id.clone(), Arc::clone(&process));
    let (for_waiter, exec_id) = (Arc::clone(sandbox), id.clone());
    spawn(move || {
        let status = for_waiter.agent.wait_exit(Some(&exec_id), &for_waiter.container.config.id);
        process.wait_output();
        process.set_exit(match status {
            Ok(status) => Exit { code: status.code, oom_killed: status.oom_killed, error: None },
            Err(error) => Exit { code: 137, oom_killed: false, error: Some(error.chain()) },
        });
    });
    Ok(ControlReply::ExecStarted { exec: id })
}
