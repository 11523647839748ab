//! A further process in a running container.

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{setsid, umask},
};

use super::{command::Command, credentials, give_up, leave_agent, paths, terminal};
use crate::{
    container::{process::ProcessPlan, stdio::ChildStdio},
    error::{Doing, Failure, Result},
    seccomp::Program,
    sys::process,
};

/// What an exec'd process needs to know. It is born in the container's PID namespace and cgroup.
pub struct Exec<'a> {
    pub plan: &'a ProcessPlan,
    pub seccomp: Option<&'a Program>,
    pub personality: Option<u32>,
    pub stdio: &'a ChildStdio,
    pub report: BorrowedFd<'a>,
    /// The container's init.
    pub init: BorrowedFd<'a>,
    /// The container's namespaces apart from the PID one (CLONE_NEW*).
    pub namespaces: i32,
    /// Whether they include a user namespace.
    pub user_namespace: bool,
}

impl Exec<'_> {
    /// Runs in the child; ends in the command.
    pub fn run(&self) -> ! {
        give_up(self.start())
    }

    fn start(&self) -> Result<Infallible> {
        // First: in the container's namespaces its processes may be able to look at this one.
        let init = leave_agent(self.stdio, self.report, &[self.init])?;
        let labels = self.plan.labels.open()?;
        self.plan.scheduling.begin()?;
        if self.user_namespace {
            self.plan.rlimits.make_room(None).doing(|| "Setting resource limits failed".into())?;
        }
        let failed = || "Entering the container's namespaces failed".to_owned();
        let init = init.first().ok_or_else(|| Failure::state(failed()))?;
        process::set_namespaces(init, self.namespaces).doing(failed)?;
        if self.user_namespace {
            credentials::become_root()?;
        }
        setsid().doing(|| "Making a session failed".into())?;
        umask(Mode::empty());
        // The mount namespace brought the container's root along; the workload cannot change what "/" is for us.
        let root = openat(CWD, "/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "Opening the root filesystem failed".into())?;
        let who = credentials::look_up(root.as_fd(), self.plan)?;
        let cwd = &self.plan.cwd;
        paths::open(root.as_fd(), cwd, OFlags::PATH | OFlags::DIRECTORY)
            .doing(|| format!("chdir to cwd {} failed", cwd.display()))?;
        if matches!(self.stdio, ChildStdio::Terminal) {
            terminal::attach(root.as_fd(), false)?;
        }
        who.own_streams()?;
        credentials::set_personality(self.personality)?;
        who.become_user(self.plan, self.seccomp)?;
        let command = Command::find(&self.plan.arguments, who.environment(self.plan))?;
        labels.apply()?;
        credentials::filter(self.plan, self.seccomp)?;
        Err(command.run())
    }
}
