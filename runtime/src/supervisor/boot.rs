//! From a container's files to its running command: machine, agent, container, streams.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dewar_protocol::{
    CreateContainer, Extent, Hello, HelloAck, MAGIC, RPC_PORT, Reply, Request, Rootfs, Upper, VERSION, WindowSize,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::agent::{Agent, unexpected};
use super::process::{Process, StreamPlan};
use crate::container::{Container, Writable};
use crate::control::{Streams, fill_random, now_ns};
use crate::engine::{self, Disk, EngineChoice, Machine, MachineSpec};
use crate::{Error, ErrorKind, Paths, ResultExt, trace};

/// How long a guest may take to its first word. Emulated on a busy machine it needs some seconds.
const BOOT_SECONDS: i64 = 60;

pub(super) struct Booted {
    pub(super) machine: Box<dyn Machine>,
    pub(super) agent: Agent,
    pub(super) init: Process,
    pub(super) engine: EngineChoice,
    /// One line for the user: why a slower engine was taken.
    pub(super) notice: Option<String>,
}

pub(super) fn boot(
    paths: &Paths,
    container: &Container,
    streams: Streams,
    size: Option<WindowSize>,
) -> Result<Booted, Error> {
    let (engine, notice) = engine::choose(paths, container.config.engine)?;
    let kernel = match &container.config.kernel {
        Some(kernel) => kernel.clone(),
        None => paths.lib_file("vmlinux")?,
    };
    let initrd = paths.lib_file("initramfs.cpio")?;
    let spec = MachineSpec {
        dir: &container.run,
        kernel: &kernel,
        initrd: &initrd,
        vcpus: container.config.vcpus,
        memory_mib: container.config.memory_mib,
        kernel_parameters: &[],
        disks: disks(container),
        shared_fs: None,
    };
    let rpc = rpc_socket(&spec.vsock_path());
    let listener = UnixListener::bind(&rpc).context(|| format!("Cannot listen on {}", rpc.display()))?;
    trace::mark("machine prepared");
    let mut machine = engine.start(&spec)?;
    trace::mark("VMM spawned");
    // While the guest boots.
    let config = fs::read(container.dir.join("spec.json"))
        .context(|| format!("Cannot read {}/spec.json", container.dir.display()))?;
    let plan = StreamPlan::for_init(container, streams, size)?;
    let request = create_request(container, config, &plan);

    let talk = || -> Result<Agent, Error> {
        let socket = accept(&listener, &*machine)?;
        greet(socket)
    };
    let agent = talk();
    let _ = fs::remove_file(&rpc);
    let agent = agent.map_err(|e| explain(e, &mut *machine))?;
    trace::mark("agent greeted");
    let init = launch(&agent, container, request, plan, machine.vsock_path());
    let init = init.map_err(|e| if e.kind() == ErrorKind::Machine { explain(e, &mut *machine) } else { e })?;
    Ok(Booted { machine, agent, init, engine: engine.choice(), notice })
}

/// Creates and starts the container's init. The streams are connected while the guest is at work.
fn launch(
    agent: &Agent,
    container: &Container,
    request: Request,
    plan: StreamPlan,
    vsock: &Path,
) -> Result<Process, Error> {
    let creating = agent.begin(request)?;
    let process = plan.connect(vsock)?;
    trace::mark("streams connected");
    match creating.wait()? {
        Reply::Created { .. } => {}
        other => return Err(unexpected(&other)),
    }
    trace::mark("container created");
    agent.call(Request::Start { container: container.config.id.clone() })?;
    trace::mark("command runs");
    Ok(process)
}

pub(crate) fn rpc_socket(vsock: &Path) -> PathBuf {
    let mut path = vsock.as_os_str().to_owned();
    path.push(format!("_{RPC_PORT}"));
    path.into()
}

fn disks(container: &Container) -> Vec<Disk> {
    let files = container.config.layers.iter().map(|(path, _)| path.clone()).collect();
    let mut disks = vec![Disk { id: "layers", files, read_only: true }];
    if matches!(container.config.writable, Writable::Disk { .. }) {
        disks.push(Disk { id: "scratch", files: vec![container.scratch_path()], read_only: false });
    }
    disks
}

fn create_request(container: &Container, spec: Vec<u8>, plan: &StreamPlan) -> Request {
    let config = &container.config;
    let mut offset = 0;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (_, length) in &config.layers {
        layers.push(Extent { offset, length: *length });
        offset += length;
    }
    let upper = match config.writable {
        Writable::Disk { .. } => Upper::Disk { disk: 1 },
        Writable::Tmpfs { size } => Upper::Tmpfs { size },
    };
    Request::Create(Box::new(CreateContainer {
        id: config.id.clone(),
        spec,
        rootfs: Rootfs::Layers { disk: 0, layers, upper },
        stdio: plan.stdio(),
        user: config.user.clone(),
        files: config.files.clone(),
        init: config.init,
        joins: Vec::new(),
        hook_state: Vec::new(),
    }))
}

/// Waits for the agent to call, or the machine to end, whichever is first.
pub(crate) fn accept(listener: &UnixListener, machine: &dyn Machine) -> Result<UnixStream, Error> {
    let ended = machine.ended_fd();
    let mut fds =
        [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(ended, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: BOOT_SECONDS, tv_nsec: 0 })) {
            Ok(0) => {
                let text = format!("The guest did not come up within {BOOT_SECONDS} seconds");
                return Err(Error::new(ErrorKind::Machine, text));
            }
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context(|| "Cannot wait for the guest".into()),
        }
    }
    if fds[0].revents().is_empty() {
        return Err(Error::new(ErrorKind::Machine, "The guest did not come up"));
    }
    let (socket, _) = listener.accept().kind(ErrorKind::Machine, || "Cannot accept the guest's connection".into())?;
    Ok(socket)
}

pub(crate) fn greet(mut socket: UnixStream) -> Result<Agent, Error> {
    let broken = || "The guest's agent does not speak as expected".to_owned();
    socket.set_read_timeout(Some(Duration::from_secs(BOOT_SECONDS.unsigned_abs()))).context(broken)?;
    let hello: Option<Hello> =
        dewar_protocol::read_frame(&mut (&mut socket).take(4096)).kind(ErrorKind::Machine, broken)?;
    let hello = hello.ok_or_else(|| Error::new(ErrorKind::Machine, "The guest's agent hung up"))?;
    if hello.magic != MAGIC || hello.version != VERSION {
        return Err(Error::new(
            ErrorKind::Machine,
            format!(
                "The guest's agent speaks version {} of the protocol, this host version {VERSION}: install kernel, initramfs \
                 and programs of one build",
                hello.version
            ),
        ));
    }
    trace_boot(&hello);
    let mut entropy = [0; 32];
    fill_random(&mut entropy);
    let ack = HelloAck { version: VERSION, realtime_ns: now_ns(), entropy };
    dewar_protocol::write_frame(&mut socket, &ack).kind(ErrorKind::Machine, broken)?;
    socket.set_read_timeout(None).context(broken)?;
    Agent::new(socket)
}

/// What the guest says of its own clock, on this host's: its greeting has just arrived.
fn trace_boot(hello: &Hello) {
    if trace::is_on() {
        let now = trace::now_ns();
        trace::mark_at(now.saturating_sub(hello.ready_ns.saturating_sub(hello.started_ns)), "guest init");
        trace::mark_at(now, "agent ready");
    }
}

/// Says how the machine fared, with its last words, beside what went wrong.
pub(crate) fn explain(error: Error, machine: &mut dyn Machine) -> Error {
    // A machine that is about to end gets a moment, for its reason is the better message.
    super::wait_readable(machine.ended_fd(), 1);
    machine.kill();
    let ended = machine.wait();
    let text =
        if ended.reason.contains("signal 9") { error.chain() } else { format!("{}: {}", error.chain(), ended.reason) };
    Error::new(ErrorKind::Machine, with_console(&text, machine))
}

pub(crate) fn with_console(text: &str, machine: &dyn Machine) -> String {
    let console = machine.console_tail();
    let lines: Vec<&str> = console.lines().filter(|l| !l.trim().is_empty()).collect();
    if lines.is_empty() {
        return format!("{text} (its console is empty)");
    }
    format!("{text}; the last lines of its console:\n  {}", last_words(&lines).join("\n  "))
}

/// The last lines, and before them why the kernel panicked when its trace has pushed that out.
fn last_words<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    const SHOWN: usize = 12;
    let (before, last) = lines.split_at(lines.len().saturating_sub(SHOWN));
    let why = before.iter().rfind(|line| line.contains("Kernel panic"));
    why.copied().into_iter().chain(last.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_s_reason_outlives_its_trace() {
        let trace: Vec<String> = (0..20).map(|n| format!("? {n}")).collect();
        let mut lines = vec!["earlier", "Kernel panic - not syncing: why"];
        lines.extend(trace.iter().map(String::as_str));
        let words = last_words(&lines);
        assert_eq!((words.len(), words[0], words[1]), (13, lines[1], "? 8"));
        assert_eq!(last_words(&lines[..5]), lines[..5]);
        assert_eq!(last_words(&lines[2..]).len(), 12);
    }
}
