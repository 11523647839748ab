//! The cgroup on the host that a machine's processes and its sandbox's are in.
//!
//! It is the group of the sandbox's first container as long as that one runs. When it ends before others of its pod, one
//! beside it with the same limits, so that the container's own can be removed: the machine is as large as before, whoever is
//! left in it, and the limits of those hold in the guest. When the guest has been stopped for good, the processes go back
//! where the first container's came from: no group has to wait until the kernel has taken a machine apart.

use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::host_cgroup::HostCgroup;
use super::link::Link;
use crate::{Error, ResultExt};

/// In the sandbox's folder: the group, once it is not a container's any more.
const FILE: &str = "machine-group.json";

#[derive(Debug)]
pub(super) struct MachineGroup {
    /// The sandbox's folder.
    dir: PathBuf,
    group: HostCgroup,
    /// Of the container whose group it was first.
    resources: Option<LinuxResources>,
    /// Whether it is the machine's own.
    own: bool,
}

impl MachineGroup {
    /// The group of a sandbox's first container.
    pub(super) fn of_first(dir: &Path, group: HostCgroup, resources: Option<LinuxResources>) -> Self {
        Self { dir: dir.to_path_buf(), group, resources, own: false }
    }

    pub(super) fn exists(&self) -> bool {
        self.group.exists()
    }

    /// Leaves the container's group to be removed: these processes and the calling one go into one of the machine's own.
    pub(super) fn part(&mut self, pids: &[i32]) -> Result<(), Error> {
        if self.own || !self.exists() {
            return Ok(());
        }
        let mut pids = pids.to_vec();
        pids.extend(self.group.kernel_threads());
        let name = format!("dewar-{}", self.dir.file_name().unwrap_or_default().to_string_lossy());
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        let group = self.group.beside(&name, own_pid, self.resources.as_ref())?;
        let file = self.dir.join(FILE);
        let text = serde_json::to_vec(&group).context(|| "Cannot encode a group".into())?;
        let written = fs::write(&file, text).context(|| format!("Cannot write {}", file.display()));
        self.group = group;
        self.own = true;
        pids.into_iter().map(|pid| self.group.add(pid)).fold(Ok(()), Result::and).and(written)
    }

    /// Puts these processes, whose guest does not run any more, and the calling one back where they came from.
    pub(super) fn release(&self, pids: &[i32]) -> Result<(), Error> {
        let own_pid = i32::try_from(std::process::id()).unwrap_or_default();
        let pids = pids.iter().copied().chain(self.group.kernel_threads()).chain([own_pid]);
        let released = pids.map(|pid| self.group.put_back(pid));
        // As many as can.
        let released = released.fold(Ok(()), Result::and);
        if self.own {
            self.group.leave_and_delete();
        }
        released
    }
}

/// Takes away what a sandbox that was killed leaves. One that lives does it by itself.
pub(super) fn clean_up(dir: &Path) -> Result<(), Error> {
    if Link::connect(dir).is_ok() {
        return Ok(());
    }
    let group: Option<HostCgroup> = fs::read(dir.join(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    group.map_or(Ok(()), |group| group.delete(false))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("Cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::link::SOCKET;

    #[test]
    fn what_a_killed_sandbox_left_goes_and_a_living_one_keeps_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let (sandbox, group) = (dir.path().join("sandbox"), dir.path().join("hierarchy/machine"));
        fs::create_dir(&sandbox).expect("makes");
        fs::create_dir_all(&group).expect("makes");
        let text = serde_json::json!({
            "groups": [{ "controllers": ["pids"], "path": group, "made": [group], "origin": null }],
            "unit": null,
        });
        fs::write(sandbox.join(FILE), text.to_string()).expect("writes");
        let listener = std::os::unix::net::UnixListener::bind(sandbox.join(SOCKET)).expect("listens");
        clean_up(&sandbox).expect("does nothing");
        assert!(sandbox.exists() && group.exists());
        drop(listener);
        clean_up(&sandbox).expect("removes");
        assert!(!sandbox.exists() && !group.exists() && dir.path().join("hierarchy").exists());
        clean_up(&sandbox).expect("has nothing to do");
    }
}
