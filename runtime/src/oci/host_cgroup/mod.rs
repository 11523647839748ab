//! The container's cgroup on the host: its process, and the machine's when it is the first of its sandbox (see
//! [`super::machine_group`]), with the container's limits and what a machine costs on top.
//!
//! Without privileges, and without a `cgroupsPath` that asks for one, there is none, as with runc. On a host of cgroup v1
//! the group is made in every hierarchy that is mounted; beside a mixed one's empty v2 hierarchy too. With the systemd
//! driver ([`super::systemd`]) the group is a unit's: systemd makes it where it knows the hierarchy, and the rest is as
//! without.

mod limits;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

pub(super) use self::limits::{io_weight, memory_limit, tasks, weight};
use super::state::wait_end;
use super::systemd::{self, Manager, Property, Unit};
use crate::{Error, ErrorKind, ResultExt};

/// What the processes of a machine that ends get to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(1);
/// After this much of waiting for a process's end it is asked whether it is still in the group.
const GLANCE: Duration = Duration::from_millis(10);
/// What the processes of a machine that lives on get to be in another group.
const REMOVAL: Duration = Duration::from_secs(1);

/// Who makes the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupManager {
    /// This program, by the hierarchies' files.
    Files,
    Systemd,
    /// Nobody: the container's processes stay in the caller's group. In the guest limits hold all the same.
    Disabled,
}

/// Where the group is, in each hierarchy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostCgroup {
    groups: Vec<Group>,
    /// The systemd driver's.
    unit: Option<Unit>,
}

/// The group that a container is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// `linux.cgroupsPath`.
    pub path: Option<&'a str>,
    pub id: &'a str,
    /// The container's process.
    pub pid: i32,
    pub resources: Option<&'a LinuxResources>,
    pub annotations: &'a BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    /// Names of the v1 controllers; empty for v2.
    controllers: Vec<String>,
    path: PathBuf,
    /// Those of its folders that were made for it, outermost first.
    made: Vec<PathBuf>,
    /// Where the container's process came from.
    origin: Option<PathBuf>,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    controllers: Vec<String>,
    mount: PathBuf,
    /// The group in it that the container's process is in before it gets one of its own.
    origin: Option<PathBuf>,
}

impl Group {
    /// When it is frozen: the file that says so, and what is to be written there to thaw it.
    fn frozen(&self) -> Option<(&'static str, &'static str)> {
        let states = [
            ("cgroup.freeze", "1", "0"),
            ("freezer.state", "FROZEN", "THAWED"),
            ("freezer.state", "FREEZING", "THAWED"),
        ];
        let holds =
            |file: &str, word: &str| fs::read_to_string(self.path.join(file)).is_ok_and(|text| text.trim() == word);
        states.into_iter().find(|(file, word, _)| holds(file, word)).map(|(file, _, thawed)| (file, thawed))
    }
}

impl HostCgroup {
    /// Makes the group, sets its limits and puts the container's process into it.
    pub(super) fn create(wanted: &Wanted<'_>, manager: CgroupManager) -> Result<Self, Error> {
        let none = Self { groups: Vec::new(), unit: None };
        if manager == CgroupManager::Disabled {
            return Ok(none);
        }
        let hierarchies = mounted()?;
        if manager == CgroupManager::Files {
            let relative = relative_path(wanted.path, wanted.id)?;
            return none.join_all(&hierarchies, &relative, wanted);
        }
        let unit = Unit::parse(wanted.path, wanted.id, systemd::is_users())?;
        if unit.is_user() && !is_unified(&hierarchies) {
            let text = "--systemd-cgroup without privileges needs a host of cgroup v2 alone: a user has none of v1";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let mut manager = Manager::open(unit.is_user())?;
        Self::create_unit(&mut manager, unit, &hierarchies, wanted)
    }

    fn create_unit(
        manager: &mut Manager,
        unit: Unit,
        hierarchies: &[Hierarchy],
        wanted: &Wanted<'_>,
    ) -> Result<Self, Error> {
        let limits = |resources| systemd::of_resources(resources, is_unified(hierarchies), manager.version());
        let mut properties: Vec<Property> = systemd::of_annotations(wanted.annotations)?;
        properties.extend(wanted.resources.map(limits).transpose()?.into_iter().flatten());
        let relative = manager.start(&unit, wanted.pid, properties)?;
        Self { groups: Vec::new(), unit: Some(unit) }.join_all(hierarchies, &relative, wanted)
    }

    fn join_all(mut self, hierarchies: &[Hierarchy], relative: &Path, wanted: &Wanted<'_>) -> Result<Self, Error> {
        let asked = wanted.path.is_some() || self.unit.is_some();
        let result = hierarchies.iter().try_for_each(|hierarchy| self.join(hierarchy, relative, asked));
        let result = result.and_then(|()| wanted.resources.map_or(Ok(()), |resources| self.limit(resources)));
        if let Err(error) = result.and_then(|()| self.check_thawed()).and_then(|()| self.add(wanted.pid)) {
            self.leave_and_delete();
            return Err(error);
        }
        Ok(self)
    }

    fn join(&mut self, hierarchy: &Hierarchy, relative: &Path, asked: bool) -> Result<(), Error> {
        let mut group = Group {
            controllers: hierarchy.controllers.clone(),
            path: hierarchy.mount.clone(),
            made: Vec::new(),
            origin: hierarchy.origin.clone(),
        };
        for part in relative {
            let parent = group.path.clone();
            group.path.push(part);
            match fs::create_dir(&group.path) {
                Ok(()) => {
                    group.made.push(group.path.clone());
                    inherit(&parent, &group)?;
                }
                // Whoever made it may have left it as it comes.
                Err(error) if error.kind() == IoKind::AlreadyExists => drop(fill_cpuset(&parent, &group)),
                Err(error)
                    if matches!(error.kind(), IoKind::PermissionDenied | IoKind::ReadOnlyFilesystem) && !asked =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error).context(|| format!("Cannot make the cgroup {}", group.path.display())),
            }
        }
        self.groups.push(group);
        Ok(())
    }

    /// Whoever enters a frozen group stands still in it.
    fn check_thawed(&self) -> Result<(), Error> {
        match self.groups.iter().find(|group| group.frozen().is_some()) {
            Some(group) => {
                let path = group.path.display();
                let text = format!("container's cgroup unexpectedly frozen: thaw {path}, or give another cgroupsPath");
                Err(Error::new(ErrorKind::State, text))
            }
            None => Ok(()),
        }
    }

    /// What is frozen cannot even be killed, on v1.
    pub(super) fn thaw(&self) {
        for group in &self.groups {
            if let Some((file, thawed)) = group.frozen() {
                let _ = fs::write(group.path.join(file), thawed);
            }
        }
    }

    /// Whether there is any.
    pub(super) fn exists(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Threads of the kernel's that are in the group: KVM puts one of each machine where the VMM was that made it.
    pub(super) fn kernel_threads(&self) -> Vec<i32> {
        let members = self.groups.iter().filter_map(|group| fs::read_to_string(group.path.join("cgroup.procs")).ok());
        let mut pids: Vec<i32> =
            members.flat_map(|text| text.lines().flat_map(str::parse).collect::<Vec<_>>()).collect();
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|pid| is_kernel_thread(*pid));
        pids
    }

    /// Puts a process into the group.
    pub(super) fn add(&self, pid: i32) -> Result<(), Error> {
        for group in &self.groups {
            write(&group.path.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Changes limits.
    pub(super) fn update(&mut self, resources: &LinuxResources) -> Result<(), Error> {
        if let Some(unit) = &self.unit {
            let mut manager = Manager::open(unit.is_user())?;
            let unified = self.groups.iter().all(|group| group.controllers.is_empty());
            manager.set(unit, &systemd::of_resources(resources, unified, manager.version())?)?;
        }
        self.limit(resources)
    }

    fn limit(&self, resources: &LinuxResources) -> Result<(), Error> {
        for group in &self.groups {
            let settings = limits::settings(resources, &group.controllers);
            let set = |(file, value): &(String, String)| {
                let path = group.path.join(file);
                // A controller that the host does not have is the guest's alone: the machine's size bounds it.
                if path.exists() { write(&path, value) } else { Ok(()) }
            };
            // The old quota over a new period may be more than the parent has, as may a new quota over the old period.
            let (periods, others): (Vec<_>, Vec<_>) =
                settings.into_iter().partition(|(file, _)| file == "cpu.cfs_period_us");
            let refused: Vec<_> = periods.iter().filter(|period| set(period).is_err()).collect();
            others.iter().chain(refused).try_for_each(set)?;
        }
        Ok(())
    }

    /// A group of this name beside this one, with its limits and a process in it. Where this one was there before anybody
    /// asked for it, it serves on.
    pub(super) fn beside(&self, name: &str, pid: i32, resources: Option<&LinuxResources>) -> Result<Self, Error> {
        let Some(unit) = &self.unit else {
            let mut other = Self { groups: Vec::new(), unit: None };
            let made = self.groups.iter().try_for_each(|group| other.join_beside(group, name));
            if let Err(error) = made.and_then(|()| other.add(pid)) {
                let _ = other.remove();
                return Err(error);
            }
            return Ok(other);
        };
        let none = BTreeMap::new();
        let wanted = Wanted { path: None, id: name, pid, resources, annotations: &none };
        let mut manager = Manager::open(unit.is_user())?;
        let mut hierarchies = mounted()?;
        // The process's way out is the one of this group, not this group.
        for hierarchy in &mut hierarchies {
            let same = self.groups.iter().find(|group| group.controllers == hierarchy.controllers);
            hierarchy.origin = same.and_then(|group| group.origin.clone());
        }
        let other = Self::create_unit(&mut manager, unit.beside(name), &hierarchies, &wanted)?;
        // They may have been changed since.
        for group in &other.groups {
            let same = self.groups.iter().find(|old| old.controllers == group.controllers);
            same.iter().for_each(|old| copy_limits(old, group));
        }
        Ok(other)
    }

    fn join_beside(&mut self, group: &Group, name: &str) -> Result<(), Error> {
        let Some((last, parents)) = group.made.split_last().filter(|(last, _)| **last == group.path) else {
            self.groups.push(Group { made: Vec::new(), ..group.clone() });
            return Ok(());
        };
        let parent = last.parent().unwrap_or(last);
        let path = parent.join(name);
        fs::create_dir(&path).context(|| format!("Cannot make the cgroup {}", path.display()))?;
        let made = parents.iter().chain([&path]).cloned().collect();
        let other = Group { path, made, ..group.clone() };
        let ready = inherit(parent, &other);
        copy_limits(group, &other);
        self.groups.push(other);
        ready
    }

    /// Puts a process back where the container's process came from.
    pub(super) fn put_back(&self, pid: i32) -> Result<(), Error> {
        let put = self.groups.iter().map(|group| {
            // The parent of the outermost folder that was made was there before.
            let home = || group.made.first().and_then(|folder| folder.parent());
            let home = group.origin.as_deref().or_else(home);
            home.map_or(Ok(()), |home| write(&home.join("cgroup.procs"), &pid.to_string()))
        });
        // In as many hierarchies as can be.
        put.fold(Ok(()), Result::and)
    }

    /// Removes what was made, when it is empty. Groups that others were put into meanwhile stay, and a unit that `others`'
    /// machine could not leave: systemd removes that with its last process.
    pub(super) fn delete(&self, others: bool) -> Result<(), Error> {
        if others {
            self.wait_empty(Instant::now() + REMOVAL);
        }
        let stopped = match &self.unit {
            Some(unit) if !(others && self.is_populated()) => {
                Manager::open(unit.is_user()).and_then(|mut manager| manager.stop(unit))
            }
            _ => Ok(()),
        };
        if !others {
            self.wait_empty(Instant::now() + PATIENCE);
        }
        self.remove()?;
        // A systemd that has gone leaves nothing to be sorry for.
        if self.groups.iter().any(|group| group.path.exists()) { stopped } else { Ok(()) }
    }

    /// Waits until nothing is left in the groups that were made; what others put into theirs may live on.
    fn wait_empty(&self, deadline: Instant) {
        let own = self.groups.iter().filter(|group| self.unit.is_some() || group.made.contains(&group.path));
        for procs in own.map(|group| group.path.join("cgroup.procs")) {
            let member = || fs::read_to_string(&procs).ok()?.lines().next()?.parse().ok();
            let mut ended = None;
            while let Some(pid) = member() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                if ended == Some(pid) {
                    // The kernel takes a moment more to take it out of its group.
                    std::thread::sleep(MOMENT);
                    continue;
                }
                // It may also be put elsewhere, and live.
                let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                if process.is_none_or(|process| wait_end(&process, left.min(GLANCE))) {
                    ended = Some(pid);
                }
            }
        }
    }

    fn is_populated(&self) -> bool {
        let populated = |group: &Group| fs::read(group.path.join("cgroup.procs")).is_ok_and(|text| !text.is_empty());
        self.groups.iter().any(populated)
    }

    fn remove(&self) -> Result<(), Error> {
        let own = self.groups.iter().filter(|_| self.unit.is_some()).map(|group| &group.path);
        for folder in own.chain(self.groups.iter().flat_map(|group| group.made.iter().rev())) {
            match fs::remove_dir(folder) {
                Err(error)
                    if !matches!(error.kind(), IoKind::NotFound | IoKind::ResourceBusy | IoKind::DirectoryNotEmpty) =>
                {
                    return Err(error).context(|| format!("Cannot remove the cgroup {}", folder.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the group that the calling process is in; its unit ends with the process.
    pub(super) fn leave_and_delete(&self) {
        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        // Who cannot leave stays: then so does the group.
        let _ = self.put_back(pid);
        let _ = self.remove();
    }
}

/// By its flags (proc(5), stat field 9).
fn is_kernel_thread(pid: i32) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
}

fn is_unified(hierarchies: &[Hierarchy]) -> bool {
    hierarchies.iter().all(|hierarchy| hierarchy.controllers.is_empty())
}

/// What a new group needs before it can hold a process: v1 cpusets begin empty; v2 controllers are handed down.
fn inherit(parent: &Path, group: &Group) -> Result<(), Error> {
    fill_cpuset(parent, group)?;
    if group.controllers.is_empty() {
        let known = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        for name in known.split_whitespace() {
            // The root of a delegated tree may hold processes, and then hands down nothing: no limit is set there.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
    Ok(())
}

/// A v1 cpuset without processors or memory holds no process.
fn fill_cpuset(parent: &Path, group: &Group) -> Result<(), Error> {
    if !group.controllers.iter().any(|name| name == "cpuset") {
        return Ok(());
    }
    let read = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if read(&group.path, file).is_empty() {
            write(&group.path.join(file), &read(parent, file))?;
        }
    }
    Ok(())
}

/// Gives a group the limits of another one, as far as both have them.
fn copy_limits(from: &Group, to: &Group) {
    for file in limits::files(&from.controllers) {
        // One setting a line.
        for setting in fs::read_to_string(from.path.join(file)).unwrap_or_default().lines() {
            // What the kernel gave the one without being asked it need not take for the other.
            let _ = fs::write(to.path.join(file), setting);
        }
    }
}

fn write(path: &Path, value: &str) -> Result<(), Error> {
    fs::write(path, value).context(|| format!("Cannot write {value:?} to {}", path.display()))
}

fn relative_path(path: Option<&str>, id: &str) -> Result<PathBuf, Error> {
    let text = path.filter(|path| !path.is_empty()).unwrap_or(id);
    let path = Path::new(text.trim_start_matches('/'));
    let plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain || path.as_os_str().is_empty() {
        return Err(Error::new(ErrorKind::Invalid, format!("linux.cgroupsPath {text:?} leads out of the hierarchy")));
    }
    Ok(path.to_path_buf())
}

/// This process's.
fn mounted() -> Result<Vec<Hierarchy>, Error> {
    let read = |path: &str| fs::read_to_string(path).context(|| format!("Cannot read {path}"));
    Ok(hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup").unwrap_or_default()))
}

/// From the texts of mountinfo, whose fields behind the dash are type, source and superblock options, and of cgroup (proc(5)).
fn hierarchies(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let known = [
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "devices",
        "freezer",
        "hugetlb",
        "net_cls",
        "net_prio",
        "perf_event",
        "rdma",
        "misc",
    ];
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((head, tail)) = line.split_once(" - ") else { continue };
        let (head, tail): (Vec<&str>, Vec<&str>) = (head.split(' ').collect(), tail.split(' ').collect());
        let (Some(root), Some(mount)) = (head.get(3), head.get(4)) else { continue };
        let (Some(kind), Some(options)) = (tail.first(), tail.get(2)) else { continue };
        let controllers: Vec<String> = match *kind {
            "cgroup2" => Vec::new(),
            "cgroup" => options.split(',').filter(|option| known.contains(option)).map(str::to_owned).collect(),
            _ => continue,
        };
        // Named hierarchies (systemd's) are nobody's to limit.
        if *kind == "cgroup" && controllers.is_empty() {
            continue;
        }
        let mount = PathBuf::from(mount);
        let origin = origin(own, &controllers, root, &mount);
        let hierarchy = Hierarchy { controllers, mount, origin };
        if !found.iter().any(|other| other.controllers == hierarchy.controllers) {
            found.push(hierarchy);
        }
    }
    found
}

/// Where a process whose groups these are is in a hierarchy, when its mount, of which `root` is the root, shows that.
fn origin(own: &str, controllers: &[String], root: &str, mount: &Path) -> Option<PathBuf> {
    let of_it = |names: &str| match controllers.first() {
        None => names.is_empty(),
        Some(first) => names.split(',').any(|name| name == first),
    };
    let path = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        of_it(names).then_some(path)
    })?;
    let below = Path::new(path).strip_prefix(root).ok()?;
    let plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    plain.then(|| mount.join(below))
}

#[cfg(test)]
mod tests {
    use super::limits::MEMORY_OVERHEAD;
    use super::*;

    #[test]
    fn hierarchies_of_a_mixed_host_are_told_apart() {
        let text = "\
31 24 0:27 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:31 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory
";
        let own = "4:memory:/a/b\n3:cpu,cpuacct:/../x\n1:name=systemd:/c\n0::/\n";
        let found: Vec<(Vec<String>, PathBuf, Option<PathBuf>)> =
            hierarchies(text, own).into_iter().map(|h| (h.controllers, h.mount, h.origin)).collect();
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(
            found,
            [
                (vec![], unified.clone(), Some(unified)),
                (vec!["cpu".into(), "cpuacct".into()], "/sys/fs/cgroup/cpu,cpuacct".into(), None),
                (vec!["memory".into()], "/sys/fs/cgroup/memory".into(), Some("/sys/fs/cgroup/memory/a/b".into())),
            ]
        );
        // Of a mount that shows a part of the hierarchy.
        let mount = Path::new("/m");
        assert_eq!(origin(own, &["memory".into()], "/a", mount), Some("/m/b".into()));
        assert_eq!(origin(own, &["memory".into()], "/other", mount), None);
    }

    #[test]
    fn paths_stay_in_the_hierarchy() {
        assert_eq!(relative_path(None, "box").ok(), Some("box".into()));
        assert_eq!(relative_path(Some("/a/b"), "box").ok(), Some("a/b".into()));
        for wrong in ["../x", "/a/../../b", "/"] {
            assert!(relative_path(Some(wrong), "box").is_err(), "{wrong}");
        }
    }

    #[test]
    fn without_a_manager_there_is_no_group() {
        let none = BTreeMap::new();
        let wanted = Wanted { path: Some("/a/b"), id: "box", pid: 42, resources: None, annotations: &none };
        let group = HostCgroup::create(&wanted, CgroupManager::Disabled).expect("asks for nothing");
        assert!(group.groups.is_empty() && group.unit.is_none());
    }

    #[test]
    fn an_empty_cpuset_is_filled_from_above_and_a_chosen_one_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |folder: &str, file: &str| dir.path().join(folder).join(file);
        for (folder, cpus) in [("", "0-3\n"), ("pod", "\n"), ("pod/box", "1\n")] {
            fs::create_dir_all(dir.path().join(folder)).expect("makes");
            fs::write(file(folder, "cpuset.cpus"), cpus).expect("writes");
            fs::write(file(folder, "cpuset.mems"), "0\n").expect("writes");
        }
        let hierarchy = Hierarchy { controllers: vec!["cpuset".into()], mount: dir.path().into(), origin: None };
        let mut group = HostCgroup { groups: Vec::new(), unit: None };
        group.join(&hierarchy, Path::new("pod/box"), true).expect("joins");
        assert_eq!(fs::read_to_string(file("pod", "cpuset.cpus")).expect("is there"), "0-3");
        assert_eq!(fs::read_to_string(file("pod/box", "cpuset.cpus")).expect("is there"), "1\n");
    }

    #[test]
    fn a_group_is_made_with_its_parents_and_goes_with_those() {
        let dir = tempfile::tempdir().expect("a folder");
        let hierarchy = Hierarchy { controllers: vec!["pids".into()], mount: dir.path().into(), origin: None };
        fs::create_dir(dir.path().join("old")).expect("makes");
        let none = BTreeMap::new();
        let wanted = Wanted { path: Some("old/new/box"), id: "box", pid: 42, resources: None, annotations: &none };
        let group = HostCgroup { groups: Vec::new(), unit: None };
        let group = group.join_all(&[hierarchy], Path::new("old/new/box"), &wanted).expect("makes");
        let procs = dir.path().join("old/new/box/cgroup.procs");
        assert_eq!(fs::read_to_string(&procs).expect("is in"), "42");
        // A cgroup's files go with it.
        fs::remove_file(procs).expect("removes");
        group.delete(false).expect("removes");
        assert!(dir.path().join("old").is_dir() && !dir.path().join("old/new").exists());
    }

    #[test]
    fn a_group_beside_has_the_same_limits_and_the_same_way_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let (memory, cpu) = (dir.path().join("memory"), dir.path().join("cpu"));
        fs::create_dir_all(cpu.join("pod/box")).expect("makes");
        fs::create_dir_all(memory.join("from")).expect("makes");
        let hierarchy = |name: &str, mount: &Path, origin: Option<PathBuf>| Hierarchy {
            controllers: vec![name.into()],
            mount: mount.into(),
            origin,
        };
        let none = BTreeMap::new();
        let wanted = Wanted { path: Some("pod/box"), id: "box", pid: 42, resources: None, annotations: &none };
        let group = HostCgroup { groups: Vec::new(), unit: None };
        let hierarchies = [hierarchy("memory", &memory, Some(memory.join("from"))), hierarchy("cpu", &cpu, None)];
        let group = group.join_all(&hierarchies, Path::new("pod/box"), &wanted).expect("makes");
        fs::write(memory.join("pod/box/memory.limit_in_bytes"), "268435456\n").expect("writes");
        let other = group.beside("machine", 43, None).expect("makes");
        let read = |path: PathBuf| fs::read_to_string(path).expect("is there");
        assert_eq!(read(memory.join("pod/machine/memory.limit_in_bytes")), "268435456");
        assert_eq!(read(memory.join("pod/machine/cgroup.procs")), "43");
        // What was there before the container was is nobody's to leave.
        assert_eq!(read(cpu.join("pod/box/cgroup.procs")), "43");
        other.put_back(44).expect("writes");
        assert_eq!(read(memory.join("from/cgroup.procs")), "44");
        // A cgroup's files go with it.
        for file in ["memory.limit_in_bytes", "cgroup.procs"] {
            let _ = fs::remove_file(memory.join("pod/machine").join(file));
            let _ = fs::remove_file(memory.join("pod/box").join(file));
        }
        group.remove().expect("removes");
        assert!(!memory.join("pod/box").exists() && memory.join("pod/machine").exists());
        other.remove().expect("removes");
        assert!(!memory.join("pod").exists() && cpu.join("pod/box").exists());
    }

    #[test]
    fn a_frozen_group_is_not_entered() {
        for (file, state, taken) in
            [("cgroup.freeze", "1\n", false), ("freezer.state", "FROZEN\n", false), ("freezer.state", "THAWED\n", true)]
        {
            let dir = tempfile::tempdir().expect("a folder");
            let hierarchy = Hierarchy { controllers: Vec::new(), mount: dir.path().into(), origin: None };
            fs::create_dir(dir.path().join("box")).expect("makes");
            fs::write(dir.path().join("box").join(file), state).expect("writes");
            let none = BTreeMap::new();
            let wanted = Wanted { path: Some("box"), id: "box", pid: 42, resources: None, annotations: &none };
            let group = HostCgroup { groups: Vec::new(), unit: None };
            assert_eq!(group.join_all(&[hierarchy], Path::new("box"), &wanted).is_ok(), taken, "{state}");
            assert_eq!(dir.path().join("box/cgroup.procs").exists(), taken);
            let path = dir.path().join("box");
            let groups = vec![Group { controllers: Vec::new(), path: path.clone(), made: Vec::new(), origin: None }];
            HostCgroup { groups, unit: None }.thaw();
            assert!(
                ["0", "THAWED"].contains(&fs::read_to_string(path.join(file)).expect("is there").trim()),
                "{state}"
            );
        }
    }

    #[test]
    fn a_unit_is_joined_in_every_hierarchy_and_leaves_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let hierarchy =
            |name: &str| Hierarchy { controllers: vec![name.into()], mount: dir.path().join(name), origin: None };
        let hierarchies = [hierarchy("memory"), hierarchy("freezer")];
        // What systemd would make, and what it knows nothing of.
        let place = Path::new("user.slice/manager.service/a.slice/a-b.slice/x-box.scope");
        fs::create_dir_all(dir.path().join("memory").join(place)).expect("makes");
        fs::write(dir.path().join("memory").join(place).join("memory.limit_in_bytes"), "").expect("makes");
        fs::create_dir(dir.path().join("freezer")).expect("makes");
        let resources: LinuxResources = serde_json::from_str(r#"{"memory":{"limit":67108864}}"#).expect("valid");
        let asks = BTreeMap::from([("org.systemd.property.KillSignal".to_owned(), "37".to_owned())]);
        let wanted = Wanted {
            path: Some("a-b.slice:x:box"),
            id: "id",
            pid: 42,
            resources: Some(&resources),
            annotations: &asks,
        };
        let unit = Unit::parse(wanted.path, wanted.id, false).expect("valid");
        let (mut manager, calls) = systemd::fake::manager(dir.path());
        let group = HostCgroup::create_unit(&mut manager, unit, &hierarchies, &wanted).expect("makes");
        drop(manager);
        let memory = (64 << 20) + (1 << 20) + MEMORY_OVERHEAD;
        let asked = calls.recv().expect("is asked");
        assert!(
            asked.contains(&format!(" MemoryLimit=uint64 {memory}")) && asked.contains("PIDs=[uint32 42]"),
            "{asked}"
        );
        for (name, file, value) in [
            ("memory", "cgroup.procs", "42"),
            ("freezer", "cgroup.procs", "42"),
            ("memory", "memory.limit_in_bytes", &memory.to_string()),
        ] {
            let file = dir.path().join(name).join(place).join(file);
            assert_eq!(fs::read_to_string(&file).expect("is there"), value);
            fs::remove_file(file).expect("goes with a cgroup");
        }
        group.remove().expect("removes");
        assert!(!dir.path().join("memory").join(place).exists());
        assert!(dir.path().join("freezer").read_dir().expect("is there").next().is_none());
    }
}
