//! Making the processes of containers. The agent forks; what the child does is in [`crate::child`].

use std::{
    fmt::Display,
    fs::{self, File},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2},
    process::Pid,
};

use super::{
    namespaces::{Joined, Namespaces, Whose},
    plan::Plan,
    process::ProcessPlan,
    rootfs::{Rootfs, Shift},
    stdio::ChildStdio,
    usher,
};
use crate::{
    cgroup::Cgroup,
    child::{exec::Exec, init::Init, report},
    error::{Doing, Result},
    seccomp::Program,
    security,
    sys::{
        process::{self, Fork},
        signal,
    },
};

/// A process on its way to its command.
#[derive(Debug)]
pub struct Spawned {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    /// The agent's end of the report socket.
    pub report: OwnedFd,
}

/// What the first process of a container is made of.
pub struct Parts<'a> {
    pub rootfs: &'a Rootfs,
    /// Detached mounts, one for each mount of the plan that shows something of the host.
    pub shared: &'a [OwnedFd],
    pub cgroup: &'a Cgroup,
    pub stdio: &'a ChildStdio,
    /// Namespaces of others to enter.
    pub joined: &'a [Joined],
}

/// Makes the first process of a container, in its cgroup and in new namespaces.
pub fn init(plan: &Plan, parts: &Parts<'_>) -> Result<Spawned> {
    let (ours, theirs) = report::pair().doing(|| "Making a report socket failed".into())?;
    let namespaces = &plan.namespaces;
    let back = if namespaces.time == Whose::Own { Some(new_time_namespace(&namespaces.time_offsets)?) } else { None };
    let born_with = u64::try_from(namespaces.born_with()).unwrap_or_default();
    let forked = with_oom_score(plan.process.oom_score_adj, || {
        let cgroup = Some(parts.cgroup.dir_fd());
        let fork = if parts.joined.is_empty() {
            process::fork_into(born_with, cgroup).doing(|| "Making the container's process failed".into())
        } else {
            usher::fork(parts.joined, born_with, || process::fork_into(0, cgroup))
        };
        if matches!(fork, Ok(Fork::Child)) {
            let Parts { rootfs, shared, stdio, .. } = *parts;
            Init { plan, rootfs, shared, stdio, report: theirs.as_fd() }.run();
        }
        fork
    });
    if let Some(own) = back {
        process::set_namespaces(&own, libc::CLONE_NEWTIME)
            .doing(|| "Returning to the machine's time namespace failed".into())?;
    }
    let spawned = spawned(forked?, ours);
    if namespaces.user != Whose::Sandbox {
        plan.process.rlimits.make_room(Some(spawned.pid)).doing(|| "Setting resource limits failed".into())?;
    }
    if namespaces.user == Whose::Own {
        set_maps(spawned.pid, namespaces)?;
        report::go(&spawned.report).doing(|| "Waking the container's process failed".into())?;
    }
    Ok(spawned)
}

/// A user namespace for the layers of a container whose maps change ids: that which it joins, or one like its own will
/// be.
pub fn shift(namespaces: &Namespaces, joined: &[Joined]) -> Result<Option<Shift>> {
    let Some((uid, gid)) = namespaces.shifted_root else { return Ok(None) };
    if let Some(joined) = joined.iter().find(|joined| joined.flag == libc::CLONE_NEWUSER) {
        let user_namespace = joined.fd.try_clone().doing(|| "Holding the user namespace failed".into())?;
        return Ok(Some(Shift { user_namespace, uid, gid }));
    }
    let failed = || "Making the user namespace of the layers failed".to_owned();
    let namespace = u64::try_from(libc::CLONE_NEWUSER).unwrap_or_default();
    // It holds the namespace until there is a descriptor of it, and does nothing.
    let (pid, pidfd) = match process::fork_into(namespace, None).doing(failed)? {
        Fork::Child => loop {
            rustix::event::pause();
        },
        Fork::Parent { pid, pidfd } => (pid, pidfd),
    };
    let opened = set_maps(pid, namespaces)
        .and_then(|()| File::open(format!("/proc/{}/ns/user", pid.as_raw_nonzero())).doing(failed));
    signal::send(&pidfd, libc::SIGKILL).doing(failed)?;
    Ok(Some(Shift { user_namespace: opened?.into(), uid, gid }))
}

fn set_maps(pid: Pid, namespaces: &Namespaces) -> Result<()> {
    let pid = pid.as_raw_nonzero();
    for (file, map) in [("uid_map", &namespaces.uid_map), ("gid_map", &namespaces.gid_map)] {
        fs::write(format!("/proc/{pid}/{file}"), map)
            .doing_as(dewar_protocol::ErrorKind::Invalid, || "Setting the id mappings failed".into())?;
    }
    Ok(())
}

/// Where a further process goes.
pub struct Place<'a> {
    pub init: BorrowedFd<'a>,
    pub init_pid: Pid,
    pub cgroup: &'a Cgroup,
    /// The group below it that was asked for.
    pub below: Option<OwnedFd>,
    pub namespaces: &'a Namespaces,
    pub seccomp: Option<&'a Program>,
    pub personality: Option<u32>,
}

/// Makes a further process in a running container.
pub fn exec(plan: &ProcessPlan, place: &Place<'_>, stdio: &ChildStdio) -> Result<Spawned> {
    let (ours, theirs) = report::pair().doing(|| "Making a report socket failed".into())?;
    let flags = place.namespaces.flags();
    let entering = || "Entering the container's PID namespace failed".to_owned();
    // A process is born into its parent's choice of PID namespace and cannot change it: the agent changes its own
    // choice for the fork.
    let own = File::open("/proc/self/ns/pid").doing(entering)?;
    process::set_namespaces(place.init, libc::CLONE_NEWPID).doing(entering)?;
    let forked = with_oom_score(plan.oom_score_adj, || {
        let group = place.below.as_ref().map_or(place.cgroup.dir_fd(), AsFd::as_fd);
        let mut fork = process::fork_into(0, Some(group));
        if place.below.is_none() && matches!(&fork, Err(e) if e.raw_os_error() == Some(libc::EBUSY)) {
            // The container has handed its controllers to groups of its own, and only leaves take processes then.
            fork = process::fork_into(0, Some(cgroup_of(place.init_pid.as_raw_nonzero())?.as_fd()));
        }
        if matches!(fork, Ok(Fork::Child)) {
            Exec {
                plan,
                seccomp: place.seccomp,
                personality: place.personality,
                stdio,
                report: theirs.as_fd(),
                init: place.init,
                namespaces: flags & !libc::CLONE_NEWPID,
                user_namespace: place.namespaces.user != Whose::Sandbox,
            }
            .run();
        }
        fork.doing(|| "Making the process failed".into())
    });
    process::set_namespaces(&own, libc::CLONE_NEWPID)
        .doing(|| "Returning to the machine's PID namespace failed".into())?;
    Ok(spawned(forked?, ours))
}

/// The group that a process (a number, or `self`) is in, whatever its workload has called it.
pub fn cgroup_of(process: impl Display) -> Result<OwnedFd> {
    let failed = || "Finding the cgroup of the container's process failed".to_owned();
    let groups = fs::read(format!("/proc/{process}/cgroup")).doing(failed)?;
    let path = groups.strip_prefix(b"0::/").unwrap_or_default().trim_ascii_end();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, "/sys/fs/cgroup", flags, Mode::empty()).doing(failed)?;
    openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS).doing(failed)
}

fn spawned(fork: Fork, report: OwnedFd) -> Spawned {
    match fork {
        Fork::Parent { pid, pidfd } => Spawned { pid, pidfd, report },
        // Both callers have run the child's side, which does not return.
        Fork::Child => process::exit_now(125),
    }
}

/// Enters a new time namespace for the next fork; the way back.
fn new_time_namespace(offsets: &str) -> Result<File> {
    let failed = || "Making the time namespace failed".to_owned();
    let own = File::open("/proc/self/ns/time").doing(failed)?;
    process::unshare(libc::CLONE_NEWTIME).doing(failed)?;
    if !offsets.is_empty() {
        fs::write("/proc/self/timens_offsets", offsets).doing(failed)?;
    }
    Ok(own)
}

/// Forks with the OOM score that the child is to have: it inherits it, and in a user namespace could not set it.
fn with_oom_score<T>(score: Option<i32>, fork: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(score) = score.filter(|score| *score != 0) else { return fork() };
    let failed = || "Setting the OOM score failed".to_owned();
    security::set_oom_score_adj(score).doing_as(dewar_protocol::ErrorKind::Invalid, failed)?;
    let forked = fork();
    security::set_oom_score_adj(0).doing(failed)?;
    forked
}
