//! `exec`: another process in a running container, with a process on the host that stands for it.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use dewar_protocol::{ExecProcess, ProcessRef, Reply, Request, UserSpec, WindowSize};
use serde_json::Value;

use super::console::{self, Console};
use super::foreground::Foreground;
use super::link::{Answer, Ask, Link, strange};
use super::monitor::pass_signals;
use super::state::{Record, Status};
use super::{Oci, foreground, signals, support};
use crate::control::wire::Wire;
use crate::control::{ControlError, Streams};
use crate::supervisor::{StreamPlan, unexpected};
use crate::{Error, ErrorKind, ResultExt};

/// What `exec` is to run.
#[derive(Debug)]
pub struct ExecOptions {
    /// JSON of an OCI `process`.
    pub process: Value,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub detach: bool,
    /// Waits until the container is resumed.
    pub ignore_paused: bool,
    /// A group below the container's own, in the guest.
    pub cgroup: Option<String>,
}

/// What the process that stands for it asks the guest for.
struct Wanted {
    process: Value,
    cgroup: Option<String>,
}

/// Says to whoever started it that the process runs.
type Started = Result<(), ControlError>;

impl Oci {
    /// The process that `exec` without `--process` starts from: the container's own, with what is particular to it gone.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such container.
    pub fn exec_template(&self, id: &str) -> Result<Value, Error> {
        let mut process = self.folder(id).read()?.process;
        if let Some(object) = process.as_object_mut() {
            for name in ["args", "consoleSize", "scheduler", "ioPriority", "execCPUAffinity"] {
                object.remove(name);
            }
            object.insert("terminal".into(), Value::Bool(false));
        }
        Ok(process)
    }

    /// Runs a process; answers its exit code, or 0 at once when it is detached.
    ///
    /// # Errors
    /// [`ErrorKind::State`] when the container does not run, [`ErrorKind::CommandNotFound`],
    /// [`ErrorKind::CommandNotExecutable`], and those of a bad specification.
    pub fn exec(&self, id: &str, options: &ExecOptions) -> Result<u8, Error> {
        let folder = self.folder(id);
        let mut record = folder.read()?;
        if options.ignore_paused {
            folder.await_resume(&mut record)?;
        }
        match record.status() {
            Status::Stopped | Status::Creating => {
                return Err(Error::new(ErrorKind::State, "cannot exec in a stopped container"));
            }
            Status::Paused => {
                let text = "cannot exec in a paused container (use --ignore-paused to override)";
                return Err(Error::new(ErrorKind::State, text));
            }
            _ => {}
        }
        support::refuse_process(&options.process)?;
        let mut process = options.process.clone();
        support::drop_unknown_capabilities(&mut process);
        let terminal = options.process.get("terminal").and_then(Value::as_bool).unwrap_or(false);
        if terminal && options.detach && options.console_socket.is_none() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "cannot allocate tty if runc will detach without setting console socket",
            ));
        }
        if !terminal && options.console_socket.is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "cannot use console socket if runc will not detach or allocate tty",
            ));
        }
        let mut own_console = None;
        let socket = match (&options.console_socket, terminal) {
            (Some(path), _) => Some(console::connect(path)?),
            (None, true) => {
                let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
                own_console = Some(ours);
                Some(theirs)
            }
            (None, false) => None,
        };
        let (ours, theirs) = UnixStream::pair().context(|| "Cannot make a socket pair".into())?;
        // SAFETY: this process has one thread, so that the child may do whatever the parent may.
        let child = match unsafe { libc::fork() } {
            -1 => return Err(std::io::Error::last_os_error()).context(|| "Cannot fork".into()),
            0 => {
                drop((ours, own_console));
                stand_for(&record, &Wanted { process, cgroup: options.cgroup.clone() }, socket, theirs)
            }
            child => child,
        };
        drop((theirs, socket));
        await_start(ours)?;
        if let Some(path) = &options.pid_file {
            super::write_pid_file(path, child)?;
        }
        if options.detach {
            return Ok(0);
        }
        wait_child(child, own_console.as_ref())
    }
}

fn await_start(socket: UnixStream) -> Result<(), Error> {
    let started: Option<Started> = Wire::new(socket).receive()?;
    let started =
        started.ok_or_else(|| Error::new(ErrorKind::Internal, "The process that stands for the exec ended early"))?;
    started.map_err(Error::from)
}

/// Waits for a child that stands for a process of a container, passing signals on to it; answers its exit code.
pub(super) fn wait_child(child: i32, console: Option<&UnixStream>) -> Result<u8, Error> {
    signals::block_all().context(|| "Cannot block signals".into())?;
    let terminal = console.map(Foreground::attach).transpose()?;
    let master: Option<OwnedFd> = terminal.as_ref().map(Foreground::duplicate).transpose()?;
    let pass = move |signal| match &master {
        Some(master) if signal == libc::SIGWINCH => foreground::copy_size(master),
        _ => {
            // SAFETY: a plain system call; the child is not reaped before this process is about to end.
            unsafe { libc::kill(child, signal) };
        }
    };
    signals::take_all(pass).context(|| "Cannot start a thread".into())?;
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context(|| "Cannot wait for the container's process".into());
        }
    }
    if let Some(terminal) = terminal {
        terminal.finish();
    }
    let code = if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The child's life: starts the process, pumps its streams, ends with its status.
fn stand_for(record: &Record, wanted: &Wanted, socket: Option<UnixStream>, starter: UnixStream) -> ! {
    let mut starter = Wire::new(starter);
    if socket.is_some() {
        let _ = rustix::process::setsid();
    }
    let code = match begin(record, wanted, socket) {
        Ok((mut link, process, reference)) => {
            let started: Started = Ok(());
            let _ = starter.send(&started, &[]);
            drop(starter);
            let code = match link.agent(Request::Wait { process: reference }) {
                Ok(Reply::Exited(status)) => status.code,
                _ => 137,
            };
            process.wait_output();
            code
        }
        Err(error) => {
            let refused: Started = Err(ControlError::from(&error));
            let _ = starter.send(&refused, &[]);
            u8::MAX
        }
    };
    std::process::exit(i32::from(code))
}

type Begun = (Link, crate::supervisor::Process, ProcessRef);

fn begin(record: &Record, wanted: &Wanted, socket: Option<UnixStream>) -> Result<Begun, Error> {
    let process = &wanted.process;
    signals::block_all().context(|| "Cannot block signals".into())?;
    let mut link = Link::connect(&record.sandbox)?;
    let vsock = match link.ask(&Ask::Info, &[])? {
        Answer::Joined(joined) => joined.vsock,
        other => return Err(strange(&other)),
    };
    let side = |name: &str| process.get("consoleSize")?.get(name)?.as_u64().and_then(|n| u16::try_from(n).ok());
    let size = side("height").zip(side("width")).map(|(rows, columns)| WindowSize { rows, columns });
    let console = socket.map(|socket| Console::open(&socket, size)).transpose()?;
    let streams = match &console {
        Some(console) => {
            Streams { stdin: Some(console.duplicate()?), stdout: Some(console.duplicate()?), stderr: None }
        }
        None => super::own_streams(),
    };
    // Whoever reads the caller's output to its end waits for the caller, not for this process.
    let null = super::leave_input_and_output()?;
    rustix::stdio::dup2_stderr(null).context(|| "Cannot close the error output".into())?;
    let plan = StreamPlan::for_exec(streams, console.as_ref().map(|console| console.size().unwrap_or_default()));
    let reference = ProcessRef { container: record.id.clone(), exec: Some(crate::container::new_id()) };
    let spec = serde_json::to_vec(process).context(|| "Cannot encode a process".into())?;
    let request = ExecProcess {
        process: reference.clone(),
        spec,
        stdio: plan.stdio(),
        user: UserSpec::Spec,
        cgroup: wanted.cgroup.clone(),
    };
    link.send(&Ask::Agent(Request::Exec(Box::new(request))), &[])?;
    let streams = plan.connect(&vsock)?;
    let made = link.receive().and_then(|answer| match answer {
        Answer::Agent(Reply::Created { .. }) => Ok(()),
        Answer::Agent(other) => Err(unexpected(&other)),
        other => Err(strange(&other)),
    });
    if let Err(error) = made {
        streams.abandon();
        return Err(error);
    }
    pass_signals(record.sandbox.clone(), reference.clone(), console)?;
    Ok((link, streams, reference))
}
