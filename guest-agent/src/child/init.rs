//! The first process of a container, from its birth in new namespaces to its command.

use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    process::{setsid, umask},
    system::{setdomainname, sethostname},
};

use super::{
    command::Command,
    credentials, devices, give_up,
    hooks::Hooks,
    leave_agent,
    mounts::{self, Unsealed},
    paths::{self, Missing},
    pivot, reaper, report, terminal,
};
use crate::{
    container::{
        mounts::Source,
        namespaces::Whose,
        plan::Plan,
        rootfs::{Root, Rootfs},
        stdio::ChildStdio,
    },
    error::{Doing, Result},
    sys::{network, process},
};

/// What an init needs to know.
pub struct Init<'a> {
    pub plan: &'a Plan,
    pub rootfs: &'a Rootfs,
    /// Detached mounts, one for each that shows something of the host, in their order.
    pub shared: &'a [OwnedFd],
    pub stdio: &'a ChildStdio,
    pub report: BorrowedFd<'a>,
}

impl Init<'_> {
    /// Runs in the child; ends in the container's command.
    pub fn run(&self) -> ! {
        give_up(self.start())
    }

    fn start(&self) -> Result<Infallible> {
        let plan = self.plan;
        let keep: Vec<_> = self.shared.iter().map(AsFd::as_fd).collect();
        let shared = leave_agent(self.stdio, self.report, &keep)?;
        let labels = plan.process.labels.open()?;
        match plan.namespaces.user {
            Whose::Own => {
                report::wait_go()?;
                credentials::become_root()?;
            }
            Whose::Joined => credentials::become_root()?,
            Whose::Sandbox => {}
        }
        setsid().doing(|| "Making a session failed".into())?;
        umask(rustix::fs::Mode::empty());
        if plan.namespaces.cgroup == Whose::Own {
            process::unshare(libc::CLONE_NEWCGROUP).doing(|| "Making the cgroup namespace failed".into())?;
        }
        let root = self.own_root()?;
        let unsealed = self.furnish(&root, &shared)?;
        let who = credentials::look_up(root.fd(), &plan.process)?;
        if matches!(self.stdio, ChildStdio::Terminal) {
            terminal::attach(root.fd(), true)?;
        }
        self.seal(&root, &unsealed)?;
        pivot(root.fd()).doing(|| "Entering the root filesystem failed".into())?;
        mounts::propagate_root(plan.root_change)?;
        who.own_streams()?;
        let hooks = Hooks::prepare(&plan.hooks, &plan.hook_state)?;
        credentials::set_personality(plan.personality)?;
        who.become_user(&plan.process, plan.seccomp.as_ref())?;
        let environment = who.environment(&plan.process);
        let command = Command::find(&plan.process.arguments, environment.clone())?;
        report::ready()?;
        report::wait_go()?;
        let filter = || credentials::filter(&plan.process, plan.seccomp.as_ref());
        hooks.map_or(Ok(()), |hooks| hooks.run(&environment, &filter))?;
        labels.apply()?;
        filter()?;
        if plan.init { reaper::run(&command) } else { Err(command.run()) }
    }
}

impl Init<'_> {
    /// The container's root as a mount of this namespace.
    fn own_root(&self) -> Result<Root> {
        let failed = || "Opening the root filesystem failed".to_owned();
        let root = self.rootfs.open().doing(failed)?;
        if self.plan.namespaces.user == Whose::Sandbox {
            return Ok(root);
        }
        // What a user namespace inherits is locked in place, and cannot be pivoted to.
        let tree = mounts::bind_over_itself(root.fd()).doing(failed)?;
        Ok(root.at(tree))
    }

    /// Mounts, devices, names and settings: everything that makes the place what the specification says; what is to be
    /// read-only in the end, with its place.
    fn furnish(&self, root: &Root, shared: &[BorrowedFd<'_>]) -> Result<Vec<(Unsealed, &Path)>> {
        let plan = self.plan;
        if plan.namespaces.network == Whose::Own {
            network::loopback_up().doing(|| "Bringing up the loopback interface failed".into())?;
        }
        if let Some(name) = &plan.hostname {
            sethostname(name.as_bytes()).doing(|| format!("Setting the host name {name:?} failed"))?;
        }
        if let Some(name) = &plan.domainname {
            setdomainname(name.as_bytes()).doing(|| format!("Setting the domain name {name:?} failed"))?;
        }
        for (path, value) in &plan.sysctls {
            std::fs::write(path, value).doing(|| format!("Writing {value:?} to {} failed", path.display()))?;
        }
        let mut shared = shared.iter().copied();
        let mut unsealed = Vec::new();
        for mount in &plan.mounts {
            let own_group = match mount.source {
                // What it sees of the others' groups would be theirs.
                Source::Filesystem { kind: "cgroup2", .. } if plan.namespaces.cgroup == Whose::Sandbox => {
                    Some(mounts::own_cgroup()?)
                }
                _ => None,
            };
            let is_given = matches!(mount.source, Source::Shared { .. } | Source::Memory { .. } | Source::Notify);
            let given = is_given.then(|| shared.next()).flatten();
            let tree = mounts::make(root, mount, own_group.as_ref().map(AsFd::as_fd).or(given))?;
            unsealed.extend(tree.map(|tree| (tree, mount.target.as_path())));
        }
        devices::populate(root.fd(), &plan.devices, plan.namespaces.user != Whose::Sandbox)?;
        let cwd = &plan.process.cwd;
        paths::ensure(root.fd(), cwd, Missing::Directory)
            .doing(|| format!("Making the working directory {} failed", cwd.display()))?;
        Ok(unsealed)
    }

    /// What has to wait until nothing more is written to the root.
    fn seal(&self, root: &Root, unsealed: &[(Unsealed, &Path)]) -> Result<()> {
        let plan = self.plan;
        unsealed.iter().try_for_each(|(tree, target)| {
            tree.seal().doing(|| format!("Making {} read-only failed", target.display()))
        })?;
        plan.read_only_paths.iter().try_for_each(|path| mounts::make_read_only(root.fd(), path))?;
        mounts::mask(root.fd(), &plan.masked_paths)?;
        mounts::change_root(root.fd(), plan.root_change)
    }
}
