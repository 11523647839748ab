//! Container cgroups: version 2 only, at `/sys/fs/cgroup` (kernel: Documentation/admin-guide/cgroup-v2.rst).
//!
//! The agent itself lives in `/agent`, containers in `/dewar/<id>`. What OCI `linux.resources` means in terms of files is
//! [`settings`]'s business and pure, what the counters say is [`stats`]'s, device access is [`devices`]'s. All files are
//! reached through directory descriptors. A container may make groups below its own: their number is bounded in depth, so
//! that walking them is. Single-threaded: waits block the caller, and are bounded.

mod devices;
mod files;
mod settings;
mod stats;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
    time::Duration,
};

use dewar_protocol::Stats;
use oci_spec::runtime::LinuxResources;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    mount::MountFlags,
};

use self::{devices::DeviceProgram, settings::Setting};

const ROOT: &str = "/sys/fs/cgroup";
const AGENT: &str = "agent";
const CONTAINERS: &str = "dewar";
/// How deep a container may nest groups.
const MAX_DEPTH: u32 = 64;
/// How long the kernel may take to freeze or to empty a group.
const PATIENCE: Duration = Duration::from_secs(5);

/// What can go wrong with a cgroup. [`CgroupError::Unsupported`], [`CgroupError::Missing`] and [`CgroupError::Invalid`] are
/// the request's fault or the kernel's configuration; the others are the kernel's refusal.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("{option} is not supported: {reason}")]
    Unsupported { option: &'static str, reason: &'static str },
    #[error("{option} cannot be {value:?}: {reason}")]
    Invalid { option: &'static str, value: String, reason: &'static str },
    #[error("This guest kernel has no {file}, which was to be set to {value:?}")]
    Missing { file: String, value: String },
    #[error("The kernel refuses {value:?} for {file}")]
    Write { file: String, value: String, source: Errno },
    #[error("Reading {file} of the cgroup")]
    Read { file: String, source: Errno },
    #[error("Refusing the {what} limit of {limit} bytes: {usage} bytes are in use")]
    BelowUsage { what: &'static str, limit: u64, usage: u64 },
    #[error("The cgroup of container {id} exists already")]
    Exists { id: String },
    #[error("Mounting the cgroup filesystem at {ROOT}")]
    Mount { source: Errno },
    #[error("Making or opening cgroup {name}")]
    Open { name: String, source: Errno },
    #[error("bad sub cgroup path {path:?}: give one below the container's")]
    Outside { path: String },
    #[error("Removing cgroup {name}")]
    Remove { name: String, source: Errno },
    #[error("Loading the device rules of the cgroup")]
    DeviceProgram { source: Errno },
    #[error("The cgroup did not report {event} within {} s", PATIENCE.as_secs())]
    Timeout { event: &'static str },
}

/// Mounts the hierarchy, moves the caller into a leaf of its own and hands every controller to the containers.
/// Called once, at boot; `/sys` is mounted.
///
/// # Errors
/// [`CgroupError::Mount`], [`CgroupError::Open`], [`CgroupError::Read`] and [`CgroupError::Write`].
pub fn mount_and_delegate() -> Result<(), CgroupError> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match rustix::mount::mount("cgroup2", ROOT, "cgroup2", flags, c"nsdelegate") {
        Ok(()) => {}
        // Mounted already, which is as good if it is what it should be.
        Err(Errno::BUSY) => {
            let found = rustix::fs::statfs(ROOT).map_err(|source| CgroupError::Mount { source })?.f_type;
            if found != libc::CGROUP2_SUPER_MAGIC {
                return Err(CgroupError::Mount { source: Errno::BUSY });
            }
        }
        Err(source) => return Err(CgroupError::Mount { source }),
    }
    let root = files::open_dir(CWD, ROOT)?;
    let agent = make_group(root.as_fd(), AGENT)?;
    // A group with controllers for its children holds no processes itself.
    files::write(agent.as_fd(), "cgroup.procs", "0")?;
    delegate(root.as_fd())?;
    let containers = make_group(root.as_fd(), CONTAINERS)?;
    delegate(containers.as_fd())
}

/// Whether a path of a group may be of another than one below.
fn leads_out(path: &str) -> bool {
    let inside = |part| matches!(part, Component::RootDir | Component::CurDir | Component::Normal(_));
    !Path::new(path).components().all(inside) || path.contains('\0')
}

fn make_group(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, CgroupError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => files::open_dir(parent, name),
        Err(source) => Err(CgroupError::Open { name: name.to_owned(), source }),
    }
}

fn delegate(group: BorrowedFd<'_>) -> Result<(), CgroupError> {
    let controllers = files::read(group, "cgroup.controllers")?;
    let enable: Vec<String> = controllers.split_ascii_whitespace().map(|name| format!("+{name}")).collect();
    if enable.is_empty() {
        return Ok(());
    }
    files::write(group, "cgroup.subtree_control", &enable.join(" "))
}

/// The cgroup of one container. Dropping it leaves the group in place; [`Cgroup::remove`] removes it.
#[derive(Debug)]
pub struct Cgroup {
    id: String,
    parent: OwnedFd,
    dir: OwnedFd,
    devices: DeviceProgram,
}

impl Cgroup {
    /// Makes the cgroup of container `id`, with its limits in place. Without device rules, only the standard devices are
    /// allowed.
    ///
    /// # Errors
    /// Any [`CgroupError`]; nothing is left behind.
    pub fn create(id: &str, resources: Option<&LinuxResources>) -> Result<Self, CgroupError> {
        if id.is_empty() || id.starts_with('.') || id.contains(['/', '\n', '\0']) {
            return Err(CgroupError::Invalid {
                option: "The container's id",
                value: id.to_owned(),
                reason: "it does not name a cgroup",
            });
        }
        let settings = resources.map(settings::convert).transpose()?.unwrap_or_default();
        let rules = resources.and_then(|r| r.devices().as_deref()).unwrap_or_default();
        let program = devices::compile(rules)?;

        let parent = files::open_dir(CWD, &format!("{ROOT}/{CONTAINERS}"))?;
        match rustix::fs::mkdirat(&parent, id, Mode::from_raw_mode(0o755)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(CgroupError::Exists { id: id.to_owned() }),
            Err(source) => return Err(CgroupError::Open { name: id.to_owned(), source }),
        }
        let populate = || {
            let dir = files::open_dir(parent.as_fd(), id)?;
            files::write(dir.as_fd(), "cgroup.max.depth", &MAX_DEPTH.to_string())?;
            settings.iter().try_for_each(|setting| apply(dir.as_fd(), setting))?;
            let devices = DeviceProgram::attach(dir.as_fd(), &program)?;
            Ok((dir, devices))
        };
        match populate() {
            Ok((dir, devices)) => Ok(Self { id: id.to_owned(), parent, dir, devices }),
            Err(error) => {
                rustix::fs::unlinkat(&parent, id, AtFlags::REMOVEDIR)
                    .map_err(|source| CgroupError::Remove { name: id.to_owned(), source })?;
                Err(error)
            }
        }
    }

    /// The group's directory, as clone3(2)'s CLONE_INTO_CGROUP takes it.
    pub fn dir_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A group that the container has made below its own, or with `/` its own.
    ///
    /// # Errors
    /// [`CgroupError::Outside`] for a path that leads out, [`CgroupError::Open`].
    pub fn below(&self, path: &str) -> Result<OwnedFd, CgroupError> {
        if leads_out(path) {
            return Err(CgroupError::Outside { path: path.to_owned() });
        }
        let below = Path::new(".").join(path.trim_start_matches('/'));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.dir, &below, flags, Mode::empty(), how)
            .map_err(|source| CgroupError::Open { name: path.to_owned(), source })
    }

    /// Changes limits; what `resources` leaves out stays as it is. Device rules replace all earlier ones.
    ///
    /// # Errors
    /// Any [`CgroupError`]; limits before the refused one are in force then.
    pub fn update(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let settings = settings::convert(resources)?;
        if resources.memory().is_some_and(|m| m.check_before_update() == Some(true)) {
            settings::check_usage(resources, stats::number(&files::read(self.dir_fd(), "memory.current")?))?;
        }
        let program = resources.devices().as_deref().map(devices::compile).transpose()?;
        settings.iter().try_for_each(|setting| apply(self.dir.as_fd(), setting))?;
        program.map_or(Ok(()), |program| self.devices.replace(self.dir.as_fd(), &program))
    }

    /// Reads the counters; those of controllers that this kernel does not have are 0.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        stats::collect(|file| files::read_optional(self.dir_fd(), file))
    }

    /// Stops every process, and returns when all have stopped.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`], after which the group is thawed again, [`CgroupError::Write`] and [`CgroupError::Read`].
    pub fn freeze(&self) -> Result<(), CgroupError> {
        files::write(self.dir_fd(), "cgroup.freeze", "1")?;
        self.wait_for("frozen", 1, "that it is frozen").or_else(|error| {
            files::write(self.dir_fd(), "cgroup.freeze", "0")?;
            Err(error)
        })
    }

    /// Lets the processes go on.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn thaw(&self) -> Result<(), CgroupError> {
        files::write(self.dir_fd(), "cgroup.freeze", "0")
    }

    /// Sends SIGKILL to every process of the group and of those below it. It does not wait for their end.
    ///
    /// # Errors
    /// [`CgroupError::Write`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        files::write(self.dir_fd(), "cgroup.kill", "1")
    }

    /// How many processes the OOM killer has taken.
    ///
    /// # Errors
    /// [`CgroupError::Read`].
    pub fn oom_kills(&self) -> Result<u64, CgroupError> {
        let events = files::read_optional(self.dir_fd(), "memory.events")?;
        Ok(stats::keyed(events.as_deref().unwrap_or_default(), "oom_kill"))
    }

    /// The processes of the group and of those below it, in ascending order.
    ///
    /// # Errors
    /// [`CgroupError::Read`] and [`CgroupError::Open`].
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        files::collect_pids(self.dir_fd(), MAX_DEPTH, &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes the group and those below it, as soon as the last process has ended.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] with processes left, [`CgroupError::Open`] and [`CgroupError::Remove`].
    pub fn remove(&self) -> Result<(), CgroupError> {
        self.wait_for("populated", 0, "that its last process ended")?;
        files::remove_below(self.dir_fd(), MAX_DEPTH)?;
        rustix::fs::unlinkat(&self.parent, self.id.as_str(), AtFlags::REMOVEDIR)
            .map_err(|source| CgroupError::Remove { name: self.id.clone(), source })
    }

    fn wait_for(&self, key: &str, value: u64, event: &'static str) -> Result<(), CgroupError> {
        let reached =
            files::wait_until(self.dir_fd(), "cgroup.events", PATIENCE, |text| stats::keyed(text, key) == value)?;
        if reached { Ok(()) } else { Err(CgroupError::Timeout { event }) }
    }
}

fn apply(dir: BorrowedFd<'_>, setting: &Setting) -> Result<(), CgroupError> {
    match files::write(dir, &setting.file, &setting.value) {
        Err(CgroupError::Write { source, .. }) if setting.tolerate == Some(source) => Ok(()),
        Err(CgroupError::Missing { .. }) if setting.tolerate == Some(Errno::NOENT) => Ok(()),
        Err(CgroupError::Missing { .. }) if setting.otherwise.is_some() => {
            setting.otherwise.as_deref().map_or(Ok(()), |other| apply(dir, other))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_asked_for_lies_below() {
        for inside in ["", "/", "one", "/one/two", "./one/", "one//two"] {
            assert!(!leads_out(inside), "{inside:?}");
        }
        for outside in ["..", "/..", "one/../..", "one/..", "o\0ne"] {
            assert!(leads_out(outside), "{outside:?}");
        }
    }
}
