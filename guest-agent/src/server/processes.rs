//! Processes from their fork to their end.
//!
//! ```text
//!            Ready report      Start          report socket closed        exit
//! Preparing ──────────────▶ Ready ──▶ Starting ──────────────────▶ Running ──▶ Exited
//!     │ Failed report, exit            │ Failed report, exit                    ▲
//!     └▶ Create fails                  └▶ Start (or Exec) fails ────────────────┘
//! ```
//! An exec'd process begins at Starting.

use std::{collections::BTreeMap, os::fd::OwnedFd, rc::Rc};

use dewar_protocol::{ErrorKind, ExitStatus, ProcessRef, Reply, Stdio, WindowSize};
use rustix::{
    event::epoll::EventFlags,
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, wait},
    termios::{Winsize, tcsetwinsize},
};

use super::{Claim, Server, poller::Token};
use crate::{
    cgroup::Cgroup,
    child::{
        reaper::status_code,
        report::{self, Message},
    },
    container::{
        memory::Held,
        namespaces::{Namespaces, Pins, Whose},
        notify::Notify,
        rootfs::Rootfs,
        spawn::Spawned,
        stdio::{self, AgentEnd},
    },
    error::{Doing, Failure, Result},
    seccomp::Program,
};

/// A container that exists.
pub struct Container {
    pub cgroup: Cgroup,
    pub rootfs: Rootfs,
    /// Memory that it shares with others.
    #[expect(dead_code, reason = "it is there to be dropped with the container")]
    pub memory: Vec<Rc<Held>>,
    pub notify: Option<Notify>,
    pub namespaces: Namespaces,
    /// Its namespaces, from the moment it is ready until it is deleted.
    pub pins: Option<Pins>,
    pub seccomp: Option<Program>,
    pub personality: Option<u32>,
    /// Numbers of its processes.
    pub init: u64,
    pub execs: BTreeMap<String, u64>,
    pub paused: bool,
    /// The call that deletes it.
    pub deleting: Option<u64>,
}

/// How far a process is. `call`: whom to answer when it is further.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    Preparing { call: u64 },
    Ready,
    Starting { call: u64 },
    Running,
    Exited(ExitStatus),
}

pub struct Process {
    pub reference: ProcessRef,
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub stage: Stage,
    pub report: Option<OwnedFd>,
    pub stdio: Stdio,
    pub terminal: Option<OwnedFd>,
    /// Why it did not get to its command.
    pub failure: Option<Failure>,
    /// Calls that wait for its end.
    pub waiters: Vec<u64>,
    /// OOM kills that the cgroup had counted before.
    pub oom_kills: u64,
}

impl Process {
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Exited(_))
    }
}

impl Server {
    /// Takes charge of a process that has just been forked.
    pub(super) fn adopt(
        &mut self,
        number: u64,
        spawned: Spawned,
        process: (ProcessRef, Stage, Stdio),
        ends: Vec<AgentEnd>,
    ) {
        let (reference, stage, stdio) = process;
        let oom_kills = self.containers.get(&reference.container).map_or(0, |c| c.cgroup.oom_kills().unwrap_or(0));
        let watched = self.poller.watch(&spawned.report, Token::Report(number), EventFlags::IN | EventFlags::RDHUP);
        let failure = watched.doing(|| "Watching the process failed".into()).err();
        let process = Process {
            reference,
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            stage,
            report: Some(spawned.report),
            stdio,
            terminal: None,
            failure,
            waiters: Vec::new(),
            oom_kills,
        };
        self.processes.insert(number, process);
        for end in ends {
            self.claim(Claim { end, owner: number, ended: false });
        }
    }

    /// Takes what a child has to say.
    pub(super) fn read_reports(&mut self, number: u64) {
        while let Some(process) = self.processes.get_mut(&number) {
            let Some(socket) = &process.report else { return };
            match report::next(socket) {
                Ok(Some(Message::Ready)) => self.is_ready(number),
                Ok(Some(Message::Terminal(master))) => {
                    if let Err(failure) = self.take_terminal(number, master) {
                        self.fail(number, failure);
                    }
                }
                Ok(Some(Message::Failed(failure))) => self.fail(number, failure),
                Ok(Some(Message::Process(_))) => {
                    self.fail(number, Failure::new(ErrorKind::Internal, "The process reports another one"));
                }
                Ok(None) => {
                    process.report = None;
                    return self.report_ended(number);
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(e) => {
                    process.report = None;
                    let failure =
                        Failure::new(ErrorKind::Internal, format!("The process's report cannot be read: {e}"));
                    return self.fail(number, failure);
                }
            }
        }
    }

    fn is_ready(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        let Stage::Preparing { call } = process.stage else { return };
        let pins = match Pins::of(process.pid) {
            Ok(pins) => pins,
            Err(failure) => return self.fail(number, failure),
        };
        process.stage = Stage::Ready;
        let pid = number_of(process.pid);
        if let Some(container) = self.containers.get_mut(&process.reference.container) {
            container.pins = Some(pins);
        }
        self.reply(call, Ok(Reply::Created { pid }));
    }

    /// Remembers why a process does not get to its command, and makes sure that it ends.
    pub(super) fn fail(&mut self, number: u64, failure: Failure) {
        if let Some(process) = self.processes.get_mut(&number) {
            process.failure.get_or_insert(failure);
            // It may have ended by itself already.
            let _ = crate::sys::signal::send(&process.pidfd, libc::SIGKILL);
        }
    }

    /// The report socket is closed: by execve, or by the end of the process.
    fn report_ended(&mut self, number: u64) {
        let Some(process) = self.processes.get_mut(&number) else { return };
        if process.failure.is_some() {
            return;
        }
        match process.stage {
            Stage::Preparing { .. } => {
                let failure =
                    Failure::new(ErrorKind::Internal, "The container's first process ended before it was ready");
                self.fail(number, failure);
            }
            Stage::Starting { call } => {
                process.stage = Stage::Running;
                let reply = match process.reference.exec {
                    Some(_) => Reply::Created { pid: number_of(process.pid) },
                    None => Reply::Done,
                };
                self.reply(call, Ok(reply));
            }
            Stage::Ready | Stage::Running | Stage::Exited(_) => {}
        }
    }

    fn take_terminal(&mut self, number: u64, master: OwnedFd) -> Result<()> {
        let Some(process) = self.processes.get_mut(&number) else { return Ok(()) };
        set_size(&master, process.stdio.terminal.unwrap_or_default())?;
        let ends = stdio::terminal_ends(&process.stdio, &master)?;
        process.terminal = Some(master);
        for end in ends {
            self.claim(Claim { end, owner: number, ended: false });
        }
        Ok(())
    }

    /// Takes the exit status of every process that has ended, orphans included.
    pub(super) fn reap(&mut self) {
        let mut waiting = [0_u8; 1024];
        // Emptied first: a child that ends from here on makes a new event.
        while matches!(rustix::io::read(&self.signals, &mut waiting), Ok(count) if count > 0) {}
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Err(Errno::INTR) => {}
                Ok(None) | Err(_) => break,
            }
        }
        let deleting: Vec<String> =
            self.containers.iter().filter(|(_, c)| c.deleting.is_some()).map(|(id, _)| id.clone()).collect();
        for id in deleting {
            self.finish_delete(&id);
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let ended = |process: &Process| process.pid == pid && !process.has_ended();
        let Some(number) = self.processes.iter().find(|(_, process)| ended(process)).map(|(number, _)| *number) else {
            return;
        };
        // What it said last comes before what became of it.
        self.read_reports(number);
        self.end_streams(number);
        let Some(process) = self.processes.get_mut(&number) else { return };
        let container = self.containers.get(&process.reference.container);
        let oom_kills = container.map_or(0, |container| container.cgroup.oom_kills().unwrap_or(0));
        let exit = ExitStatus { code: status_code(status), oom_killed: oom_kills > process.oom_kills };
        let stage = std::mem::replace(&mut process.stage, Stage::Exited(exit));
        process.terminal = None;
        process.report = None;
        let failure = process.failure.take();
        let waiters = std::mem::take(&mut process.waiters);
        let reference = process.reference.clone();
        for waiter in waiters {
            self.reply(waiter, Ok(Reply::Exited(exit)));
        }
        if reference.exec.is_none() {
            self.end_notify(number);
            self.kill_rest(&reference.container);
        }
        let unexplained = || Failure::new(ErrorKind::Internal, "The process ended before it was ready");
        match stage {
            Stage::Preparing { call } => {
                // That it could not be cleaned up is told as well, and does not hide why it failed.
                if let Err(left) = self.destroy(&reference.container) {
                    crate::machine::say(&left.sentence());
                }
                self.reply(call, Err(failure.unwrap_or_else(unexplained)));
            }
            Stage::Starting { call } => {
                self.reply(call, Err(failure.unwrap_or_else(unexplained)));
                if let Some(exec) = &reference.exec {
                    self.forget_exec(&reference.container, exec);
                }
            }
            Stage::Ready | Stage::Running | Stage::Exited(_) => {}
        }
    }

    /// A container ends with its first process, also where its PID namespace does not see to that.
    fn kill_rest(&self, container: &str) {
        if let Some(container) =
            self.containers.get(container).filter(|container| container.namespaces.pid != Whose::Own)
        {
            // Nothing left to kill is what is wanted.
            let _ = container.cgroup.kill();
        }
    }

    fn forget_exec(&mut self, container: &str, exec: &str) {
        let number = self.containers.get_mut(container).and_then(|container| container.execs.remove(exec));
        if let Some(number) = number {
            self.streams.forget(number);
            self.processes.remove(&number);
        }
    }

    /// Ends a deletion once every process of the container has ended.
    pub(super) fn finish_delete(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let Some(call) = container.deleting else { return };
        let numbers = container.execs.values().chain([&container.init]);
        if numbers.filter_map(|number| self.processes.get(number)).any(|process| !process.has_ended()) {
            return;
        }
        let removed = self.destroy(id);
        self.reply(call, removed.map(|()| Reply::Done));
    }

    /// Frees what a container without processes used.
    fn destroy(&mut self, id: &str) -> Result<()> {
        let Some(container) = self.containers.remove(id) else { return Ok(()) };
        for number in container.execs.values().chain([&container.init]) {
            self.streams.forget(*number);
            self.processes.remove(number);
        }
        container.rootfs.unmount(&mut self.storage.disks);
        container.cgroup.remove().doing(|| format!("Removing the cgroup of {id} failed"))
    }
}

/// Sets the size of a terminal.
pub fn set_size(terminal: &OwnedFd, size: WindowSize) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).doing(|| "Setting the size of the terminal failed".into())
}

pub fn number_of(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_nonzero().get()).unwrap_or_default()
}
