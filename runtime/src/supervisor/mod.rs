//! The supervisor: one process per running container.
//!
//! It owns the machine (which dies with it), the connection to the guest's agent, the pumps between the guest's streams
//! and whoever is attached, the log, and the exit status. Its main thread starts the machine and waits for the end; other
//! threads serve control connections (`server`), read the agent's replies (`agent`) and pump one stream each
//! (`streams`). It trusts nothing that comes from the guest.

mod agent;
mod boot;
mod process;
pub(crate) mod scratch;
mod server;
mod streams;

use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dewar_protocol::Request;

use crate::container::{Container, ContainerState, ContainerStore, Status, Writable};
use crate::control::wire::Wire;
use crate::control::{ControlError, ControlReply, ControlRequest, Exit, now_ns};
use crate::engine::Machine;
use crate::{Error, ErrorKind, Paths, ResultExt, trace};

use boot::Booted;
use server::Sandbox;

pub(crate) use agent::{Agent, unexpected};
pub(crate) use boot::{accept, explain, greet, rpc_socket, with_console};
pub(crate) use process::{Process, StreamPlan};
pub(crate) use server::take_streams;

/// Seconds that a guest gets to sync and power off before it is killed.
const SHUTDOWN_SECONDS: u64 = 10;

/// Runs a container from start to end. Standard input is the control connection of whoever started it.
///
/// # Errors
/// Only those that could not be told to the starter.
pub fn run(id: &str, data: PathBuf, run: PathBuf) -> Result<(), Error> {
    trace::mark("supervisor up");
    // A session of its own: what kills the starter's terminal must not kill the container.
    let _ = rustix::process::setsid();
    // SAFETY: descriptor 0 is this process's standard input, which nothing else uses.
    let starter = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    let mut starter = Wire::new(starter);
    let Some(request) = starter.receive::<ControlRequest>()? else { return Ok(()) };
    let started = start(id, data, run, request, &mut starter);
    let (Running { sandbox, machine, notice }, lock) = match started {
        Ok(started) => started,
        Err(error) => {
            let answer: Result<ControlReply, ControlError> = Err(ControlError::from(&error));
            return starter.send(&answer, &[]);
        }
    };
    let answer: Result<ControlReply, ControlError> = Ok(ControlReply::Started { notice });
    let answered = starter.send(&answer, &[]);
    if answered.is_ok() {
        server::serve_connection(&sandbox, starter, true);
    }
    end(&sandbox, machine, lock);
    Ok(())
}

struct Running {
    sandbox: Arc<Sandbox>,
    machine: Box<dyn Machine>,
    notice: Option<String>,
}

fn start(
    id: &str,
    data: PathBuf,
    run: PathBuf,
    request: ControlRequest,
    starter: &mut Wire,
) -> Result<(Running, fs::File), Error> {
    let ControlRequest::Start { streams, size } = request else {
        return Err(Error::new(ErrorKind::Invalid, "The first request to a supervisor has to be the start"));
    };
    let streams = server::take_streams(starter, streams)?;
    let paths = Paths::of_program(data, run)?;
    let container = ContainerStore::new(&paths).open(id)?;
    let lock = container.try_lock()?.ok_or_else(|| {
        Error::new(ErrorKind::State, format!("Container {} is running already", container.config.name))
    })?;
    let _ = fs::remove_dir_all(&container.run);
    crate::paths::make_private_dir(&container.run)?;
    let result = boot::boot(&paths, &container, streams, size).and_then(|booted| running(&container, booted));
    match result {
        Ok(running) => Ok((running, lock)),
        Err(error) => {
            give_up(&container, &error);
            Err(error)
        }
    }
}

/// Leaves an unstartable container as docker does: there, with its error and exit code, or gone with `--rm`.
fn give_up(container: &Container, error: &Error) {
    let _ = fs::remove_dir_all(&container.run);
    if container.config.auto_remove {
        report(container.remove_files());
        return;
    }
    let mut state = container.read_state().unwrap_or_else(|_| ContainerState::created());
    state.exit_code = match error.kind() {
        ErrorKind::CommandNotFound => 127,
        ErrorKind::CommandNotExecutable => 126,
        _ => 125,
    };
    state.error = Some(error.chain());
    state.pid = None;
    report(container.write_state(&state));
}

fn running(container: &Container, booted: Booted) -> Result<Running, Error> {
    let Booted { machine, agent, init, engine, notice } = booted;
    let listener = UnixListener::bind(container.control_socket())
        .context(|| format!("Cannot listen on {}", container.control_socket().display()))?;
    let state = ContainerState {
        status: Status::Running,
        pid: Some(rustix::process::getpid().as_raw_nonzero().get()),
        engine: Some(engine),
        started_ns: Some(now_ns()),
        ..ContainerState::created()
    };
    container.write_state(&state)?;
    let kill = machine.ended_fd().try_clone_to_owned().context(|| "Cannot duplicate a descriptor".into())?;
    let vsock = machine.vsock_path().to_path_buf();
    let sandbox = Arc::new(Sandbox::new(container.clone(), agent, init, state, vsock, kill));
    server::listen(&sandbox, listener);
    Ok(Running { sandbox, machine, notice })
}

/// Waits for the container's end, takes everything down, and only then tells those who wait.
fn end(sandbox: &Arc<Sandbox>, mut machine: Box<dyn Machine>, lock: fs::File) {
    let container = &sandbox.container;
    let exit = match sandbox.agent.wait_exit(None, &container.config.id) {
        Ok(status) => Exit { code: status.code, oom_killed: status.oom_killed, error: None },
        Err(_) => {
            // The connection breaks a moment before the machine is gone: its own reason is the better one.
            wait_readable(machine.ended_fd(), 1);
            machine.kill();
            let ended = machine.wait();
            let error =
                boot::with_console(&format!("The machine ended before the container: {}", ended.reason), &*machine);
            Exit { code: 137, oom_killed: false, error: Some(error) }
        }
    };
    trace::mark("command ended");
    if exit.error.is_none() {
        let keeps_disk = matches!(container.config.writable, Writable::Disk { .. }) && !container.config.auto_remove;
        if keeps_disk && sandbox.agent.call_for(Request::Shutdown, SHUTDOWN_SECONDS).is_ok() {
            wait_readable(machine.ended_fd(), SHUTDOWN_SECONDS);
        }
        sandbox.init.wait_output();
        machine.kill();
    } else {
        sandbox.init.wait_output();
    }
    trace::mark("output delivered");
    let mut state = sandbox.state();
    state.status = Status::Exited;
    state.pid = None;
    state.exit_code = exit.code;
    state.oom_killed = exit.oom_killed;
    state.error.clone_from(&exit.error);
    state.finished_ns = Some(now_ns());
    let _ = fs::remove_dir_all(&container.run);
    if container.config.auto_remove {
        report(container.remove_files());
    } else {
        report(container.write_state(&state));
    }
    drop(state);
    drop(lock);
    trace::mark("files settled");
    sandbox.finish(exit);
    machine.wait();
    trace::mark("machine gone");
}

fn wait_readable(fd: impl AsFd, seconds: u64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|n| n > 0),
        }
    }
}

/// For errors that nobody waits for: they go to the supervisor's own log.
fn report(result: Result<(), Error>) {
    if let Err(error) = result {
        eprintln!("dewar-supervisor: {}", error.chain());
    }
}

/// Locks, also when another thread panicked while it held the lock: the data are plain values that stay whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait_on<'a, T>(condition: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condition.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
