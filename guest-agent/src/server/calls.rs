//! The host's calls.

use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use dewar_protocol::{
    CreateContainer, ErrorKind, ExecProcess, GuestInfo, Join, ProcessRef, Reply, Request, Stdio, WindowSize,
};
use oci_spec::runtime::LinuxResources;
use rustix::{
    system::{sysinfo, uname},
    time::{ClockId, clock_gettime},
};

use super::{
    Server,
    processes::{Container, Process, Stage, number_of, set_size},
};
use crate::{
    cgroup::Cgroup,
    child::{devices, report},
    container::{
        memory::Held,
        mounts::Source,
        namespaces::{self, Joined, Namespaces, Whose},
        notify::Notify,
        plan::{self, Plan},
        process::{ProcessPlan, Role},
        reading,
        rootfs::Rootfs,
        spawn::{self, Parts, Place},
        stdio::{self, Direction},
    },
    error::{Doing, Failure, Result},
    proc_files, procs,
    sys::signal,
};

/// What becomes of a call.
pub(super) enum Answer {
    Now(Reply),
    /// An event will bring the reply.
    Later,
}

/// What the agent has for the mounts of a container.
struct Given {
    /// Detached mounts, in the order of the mounts that show them.
    trees: Vec<OwnedFd>,
    /// To be held as long as the container is there.
    memory: Vec<Rc<Held>>,
    notify: Option<Notify>,
}

const DONE: Result<Answer> = Ok(Answer::Now(Reply::Done));

impl Server {
    pub(super) fn answer(&mut self, call: u64, request: Request) {
        match self.serve(call, request) {
            Ok(Answer::Now(reply)) => self.reply(call, Ok(reply)),
            Ok(Answer::Later) => {}
            Err(failure) => self.reply(call, Err(failure)),
        }
    }

    fn serve(&mut self, call: u64, request: Request) -> Result<Answer> {
        if self.closing.is_some() {
            return Err(Failure::state("The sandbox is shutting down"));
        }
        match request {
            Request::GuestInfo => Ok(Answer::Now(Reply::GuestInfo(guest_info()))),
            Request::Create(request) => self.create(call, &request),
            Request::Start { container } => self.start(call, &container),
            Request::Exec(request) => self.exec(call, &request),
            Request::Signal { process, signal, all } => self.signal(&process, signal, all),
            Request::Wait { process } => self.wait_for(call, &process),
            Request::Resize { process, size } => self.resize(&process, size),
            Request::CloseStdin { process } => self.close_stdin(&process),
            Request::Stats { container } => {
                let stats = self.container(&container)?.cgroup.stats();
                let stats = stats.doing(|| format!("Reading the counters of {container} failed"))?;
                Ok(Answer::Now(Reply::Stats(Box::new(stats))))
            }
            Request::Processes { container } => {
                let pids = self.container(&container)?.cgroup.pids();
                let pids = pids.doing(|| format!("Listing the processes of {container} failed"))?;
                Ok(Answer::Now(Reply::Processes(procs::list(&pids))))
            }
            Request::ProcView { container } => {
                let pids = self.container(&container)?.cgroup.pids();
                let pids = pids.doing(|| format!("Listing the processes of {container} failed"))?;
                Ok(Answer::Now(Reply::ProcView(proc_files::view(&pids))))
            }
            Request::Pause { container } => self.set_paused(&container, true),
            Request::Resume { container } => self.set_paused(&container, false),
            Request::Update { container, resources } => self.update(&container, &resources),
            Request::AwaitReady { container } => self.await_ready(call, &container),
            Request::Delete { container } => self.delete(call, &container),
            Request::Shutdown => {
                self.begin_shutdown(call);
                Ok(Answer::Later)
            }
        }
    }

    pub(super) fn container(&self, id: &str) -> Result<&Container> {
        self.containers.get(id).ok_or_else(|| no_container(id))
    }

    fn number_of(&self, reference: &ProcessRef) -> Result<u64> {
        let container = self.container(&reference.container)?;
        match &reference.exec {
            None => Ok(container.init),
            Some(exec) => container.execs.get(exec).copied().ok_or_else(|| no_process(reference)),
        }
    }

    fn process(&mut self, reference: &ProcessRef) -> Result<&mut Process> {
        let number = self.number_of(reference)?;
        self.processes.get_mut(&number).ok_or_else(|| no_process(reference))
    }

    fn create(&mut self, call: u64, request: &CreateContainer) -> Result<Answer> {
        if self.containers.contains_key(&request.id) {
            return Err(Failure::new(ErrorKind::Exists, format!("The container {} exists already", request.id)));
        }
        let mut plan = Plan::from_request(request)?;
        stdio::check(&request.stdio)?;
        devices::stash(&mut plan.devices, &plan.namespaces)?;
        let joined = self.joined(&mut plan.namespaces, &request.joins)?;
        let shift = spawn::shift(&plan.namespaces, &joined)?;
        let mut rootfs = Some(Rootfs::mount(&mut self.storage, request, shift.as_ref())?);
        let made = self.create_on(call, request, (&mut plan, &joined), &mut rootfs);
        if let Some(rootfs) = rootfs {
            rootfs.unmount(&mut self.storage.disks);
        }
        made
    }

    /// The namespaces that a container shares with others.
    fn joined(&mut self, namespaces: &mut Namespaces, joins: &[Join]) -> Result<Vec<Joined>> {
        let failed = || "Holding a namespace failed".to_owned();
        let mut joined = Vec::new();
        for join in joins {
            let (_, _, flag, _) = namespaces::kind_of_name(&join.namespace)?;
            let other = self.container(&join.container)?;
            let ended = self.processes.get(&other.init).is_none_or(Process::has_ended);
            let fd = other.pins.as_ref().filter(|_| !ended).and_then(|pins| pins.get(flag));
            let fd = fd.ok_or_else(|| {
                let (namespace, container) = (&join.namespace, &join.container);
                Failure::state(format!("The {namespace} namespace of {container} cannot be joined: it does not run"))
            })?;
            joined.push(Joined { flag, fd: fd.try_clone_to_owned().doing(failed)? });
            if flag == libc::CLONE_NEWUSER {
                namespaces.shifted_root = other.namespaces.shifted_root;
                // Whoever does not have one has the guest's, which cannot be entered by who is in it.
                if other.namespaces.user == Whose::Sandbox {
                    joined.pop();
                    namespaces.user = Whose::Sandbox;
                }
            }
        }
        if namespaces.pid == Whose::Sandbox {
            let fd = self.sandbox.pid_namespace()?.try_clone_to_owned().doing(failed)?;
            joined.push(Joined { flag: libc::CLONE_NEWPID, fd });
        }
        Ok(joined)
    }

    /// Creates on a mounted root filesystem, which it takes when it succeeds.
    fn create_on(
        &mut self,
        call: u64,
        request: &CreateContainer,
        (plan, joined): (&mut Plan, &[Joined]),
        rootfs: &mut Option<Rootfs>,
    ) -> Result<Answer> {
        let id = &request.id;
        let (child_stdio, ends) = stdio::make(&request.stdio)?;
        if let Some(root) = plan.namespaces.shifted_root {
            stdio::give_to(&child_stdio, root)?;
        }
        let cgroup = Cgroup::create(id, plan.resources.as_ref())
            .doing_as(ErrorKind::Invalid, || format!("Limiting the resources of {id} failed"))?;
        let number = self.new_number();
        let Some(mounted) = rootfs.as_ref() else { return Err(no_container(id)) };
        let given = self.given_mounts(plan, number);
        let spawned = given.and_then(|given| {
            let (shared, cgroup, stdio) = (&given.trees, &cgroup, &child_stdio);
            let spawned = spawn::init(plan, &Parts { rootfs: mounted, shared, cgroup, stdio, joined })?;
            Ok((spawned, given))
        });
        let (spawned, given) = match spawned {
            Ok(spawned) => spawned,
            Err(failure) => {
                // The failure is the better story than a group that stays behind.
                let _ = cgroup.kill();
                let _ = cgroup.remove();
                return Err(failure);
            }
        };
        drop(child_stdio);
        let Some(rootfs) = rootfs.take() else { return Err(no_container(id)) };
        let container = Container {
            cgroup,
            rootfs,
            memory: given.memory,
            notify: given.notify,
            namespaces: std::mem::take(&mut plan.namespaces),
            pins: None,
            seccomp: plan.seccomp.take(),
            personality: plan.personality,
            init: number,
            execs: std::collections::BTreeMap::new(),
            paused: false,
            deleting: None,
        };
        self.containers.insert(id.clone(), container);
        let reference = ProcessRef { container: id.clone(), exec: None };
        self.adopt(number, spawned, (reference, Stage::Preparing { call }, request.stdio.clone()), ends);
        if let Err(failure) = self.watch_notify(number) {
            self.fail(number, failure);
        }
        Ok(Answer::Later)
    }

    /// Takes what a container is to see of the host's directories, of memory that others see as well, and of its notify
    /// socket. `number`: of its init.
    fn given_mounts(&mut self, plan: &Plan, number: u64) -> Result<Given> {
        let mut given = Given { trees: Vec::new(), memory: Vec::new(), notify: None };
        for mount in &plan.mounts {
            match &mount.source {
                Source::Shared { path, recursive } => given.trees.push(self.storage.shared.tree(path, *recursive)?),
                Source::Memory { name, options } => {
                    let (tree, held) = self.storage.memory.tree(name, options)?;
                    given.trees.push(tree);
                    given.memory.push(held);
                }
                Source::Notify => {
                    let notify = match given.notify.take() {
                        Some(notify) => notify,
                        None => Notify::make(number)?,
                    };
                    given.trees.push(notify.tree()?);
                    given.notify = Some(notify);
                }
                Source::Filesystem { .. } | Source::File { .. } | Source::Root { .. } => {}
            }
        }
        Ok(given)
    }

    fn start(&mut self, call: u64, id: &str) -> Result<Answer> {
        let process = self.process(&ProcessRef { container: id.to_owned(), exec: None })?;
        let (Stage::Ready, Some(socket)) = (process.stage, &process.report) else {
            return Err(Failure::state(format!("The container {id} has been started already")));
        };
        report::go(socket).doing(|| format!("Starting the container {id} failed"))?;
        process.stage = Stage::Starting { call };
        Ok(Answer::Later)
    }

    fn exec(&mut self, call: u64, request: &ExecProcess) -> Result<Answer> {
        let reference = &request.process;
        let Some(exec) = &reference.exec else { return Err(Failure::invalid("An exec'd process needs an id")) };
        plan::check_id(exec)?;
        let container = self.running(&reference.container)?;
        if container.execs.contains_key(exec) {
            return Err(Failure::new(ErrorKind::Exists, format!("The process {exec} exists already")));
        }
        let plan = ProcessPlan::from_spec(&reading::process(&request.spec)?, &request.user, Role::Exec)?;
        stdio::check(&request.stdio)?;
        let (child_stdio, ends) = stdio::make(&request.stdio)?;
        if let Some(root) = container.namespaces.shifted_root {
            stdio::give_to(&child_stdio, root)?;
        }
        let init = self.processes.get(&container.init).ok_or_else(|| no_process(reference))?;
        let below = request.cgroup.as_deref().map(|path| container.cgroup.below(path));
        let place = Place {
            init: init.pidfd.as_fd(),
            init_pid: init.pid,
            cgroup: &container.cgroup,
            below: below.transpose().doing_as(ErrorKind::Invalid, || "Finding the process's cgroup failed".into())?,
            namespaces: &container.namespaces,
            seccomp: container.seccomp.as_ref(),
            personality: container.personality,
        };
        let spawned = spawn::exec(&plan, &place, &child_stdio)?;
        drop(child_stdio);
        let number = self.new_number();
        if let Some(container) = self.containers.get_mut(&reference.container) {
            container.execs.insert(exec.clone(), number);
        }
        self.adopt(number, spawned, (reference.clone(), Stage::Starting { call }, request.stdio.clone()), ends);
        Ok(Answer::Later)
    }

    /// A container whose first process has its place and has not ended, not paused.
    fn running(&self, id: &str) -> Result<&Container> {
        let container = self.container(id)?;
        let stage = self.processes.get(&container.init).map(|process| process.stage);
        if !matches!(stage, Some(Stage::Ready | Stage::Starting { .. } | Stage::Running)) {
            return Err(Failure::state(format!("The container {id} is not running")));
        }
        if container.paused {
            return Err(Failure::state(format!("The container {id} is paused")));
        }
        Ok(container)
    }

    fn signal(&mut self, reference: &ProcessRef, number: i32, all: bool) -> Result<Answer> {
        if !(1..=64).contains(&number) {
            return Err(Failure::invalid(format!("{number} is no signal")));
        }
        let failed = || format!("Sending signal {number} failed");
        let container = self.container(&reference.container)?;
        let waiting = self.processes.get(&container.init).filter(|init| matches!(init.stage, Stage::Ready));
        if all && number == libc::SIGKILL {
            container.cgroup.kill().doing(failed)?;
            return DONE;
        }
        if all {
            let init = waiting.map(|init| number_of(init.pid));
            for pid in container.cgroup.pids().doing(failed)? {
                if init != Some(pid) {
                    // A process that has ended meanwhile needs no signal.
                    let _ = signal::send_to(i32::try_from(pid).unwrap_or(i32::MAX), number);
                }
            }
        }
        if let Some(init) = waiting.filter(|_| all || reference.exec.is_none()) {
            return end_waiting(init, number);
        }
        if all {
            return DONE;
        }
        let kill_all = reference.exec.is_none() && number == libc::SIGKILL;
        let process = self.process(reference)?;
        if process.has_ended() {
            return Err(Failure::state(format!("The process of {} has ended", reference.container)));
        }
        signal::send(&process.pidfd, number).doing(failed)?;
        if kill_all {
            self.container(&reference.container)?.cgroup.kill().doing(failed)?;
        }
        DONE
    }

    fn wait_for(&mut self, call: u64, reference: &ProcessRef) -> Result<Answer> {
        let process = self.process(reference)?;
        if let Stage::Exited(status) = process.stage {
            return Ok(Answer::Now(Reply::Exited(status)));
        }
        process.waiters.push(call);
        Ok(Answer::Later)
    }

    fn resize(&mut self, reference: &ProcessRef, size: WindowSize) -> Result<Answer> {
        let process = self.process(reference)?;
        match &process.terminal {
            Some(terminal) => set_size(terminal, size)?,
            None => return Err(Failure::state("The process has no terminal")),
        }
        DONE
    }

    /// Closes a process's input behind what has arrived; a terminal has no such end.
    fn close_stdin(&mut self, reference: &ProcessRef) -> Result<Answer> {
        let number = self.number_of(reference)?;
        if let Stdio { terminal: Some(_), .. } = self.process(reference)?.stdio {
            return DONE;
        }
        self.streams.forget_input(number);
        let input = self.pumps.iter_mut().find(|(_, p)| p.owner == number && p.direction == Direction::Input);
        if let Some((&pump_number, pump)) = input {
            pump.end_source();
            self.run_pump(pump_number);
        }
        DONE
    }

    fn set_paused(&mut self, id: &str, paused: bool) -> Result<Answer> {
        if paused {
            self.running(id)?;
        }
        let container = self.containers.get_mut(id).ok_or_else(|| no_container(id))?;
        if paused {
            container.cgroup.freeze().doing(|| format!("Pausing {id} failed"))?;
        } else if container.paused {
            container.cgroup.thaw().doing(|| format!("Resuming {id} failed"))?;
        } else {
            return Err(Failure::state(format!("The container {id} is not paused")));
        }
        container.paused = paused;
        DONE
    }

    fn update(&mut self, id: &str, resources: &[u8]) -> Result<Answer> {
        let resources: LinuxResources = serde_json::from_slice(resources)
            .doing_as(ErrorKind::Invalid, || "The resource limits do not parse".into())?;
        let container = self.containers.get_mut(id).ok_or_else(|| no_container(id))?;
        container
            .cgroup
            .update(&resources)
            .doing_as(ErrorKind::Invalid, || format!("Limiting the resources of {id} failed"))?;
        DONE
    }

    fn delete(&mut self, call: u64, id: &str) -> Result<Answer> {
        let container = self.containers.get_mut(id).ok_or_else(|| no_container(id))?;
        if container.deleting.is_some() {
            return Err(Failure::state(format!("The container {id} is being deleted already")));
        }
        container.cgroup.kill().doing(|| format!("Killing the processes of {id} failed"))?;
        container.deleting = Some(call);
        self.finish_delete(id);
        Ok(Answer::Later)
    }
}

/// Signals the first process of a container that is not started. It runs no handlers: what it does by default counts.
fn end_waiting(init: &Process, number: i32) -> Result<Answer> {
    let failed = || format!("Sending signal {number} failed");
    match (number, &init.report) {
        (libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT, _) => {}
        (libc::SIGKILL | libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU, _) | (_, None) => {
            signal::send(&init.pidfd, number).doing(failed)?;
        }
        (_, Some(socket)) => report::end(socket, u8::try_from(number).unwrap_or_default()).doing(failed)?,
    }
    DONE
}

fn no_container(id: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("There is no container {id}"))
}

fn no_process(reference: &ProcessRef) -> Failure {
    let exec = reference.exec.as_deref().unwrap_or_default();
    Failure::new(ErrorKind::NotFound, format!("There is no process {exec} in the container {}", reference.container))
}

fn guest_info() -> GuestInfo {
    let system = sysinfo();
    GuestInfo {
        kernel: uname().release().to_string_lossy().into_owned(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        cpus: std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1),
        memory_bytes: system.totalram.saturating_mul(u64::from(system.mem_unit)),
        uptime_ns: uptime_ns(),
    }
}

/// CLOCK_BOOTTIME in nanoseconds.
pub fn uptime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or_default());
    let nanoseconds = Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default());
    u64::try_from(seconds.saturating_add(nanoseconds).as_nanos()).unwrap_or(u64::MAX)
}
