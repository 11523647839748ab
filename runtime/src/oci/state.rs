//! A container's folder below `--root`: what is on record of it, and what can be told from that.
//!
//! The record is written by `create` and `start`; whether the container still runs is asked of the kernel: its process on
//! the host (see [`super::monitor`]) lives exactly as long as its init in the guest.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock, inotify};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::hooks::{Hook, Place};
use super::host_cgroup::HostCgroup;
use super::update::Bandwidth;
use crate::engine::EngineChoice;
use crate::{Error, ErrorKind, ResultExt};

/// The longest id that runc takes, too: it names files.
const MAX_ID: usize = 1024;

/// What is on record of a container: `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub oci_version: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub annotations: BTreeMap<String, String>,
    /// RFC 3339, UTC.
    pub created: String,
    pub owner: String,
    /// The container's process on the host.
    pub pid: i32,
    /// When that process started, in clock ticks since boot: tells it from a later one with the same number.
    pub pid_start: u64,
    /// Folder of the sandbox's sockets.
    pub sandbox: PathBuf,
    pub engine: EngineChoice,
    pub vcpus: u8,
    pub memory_mib: u64,
    /// `create` is not done yet.
    pub creating: bool,
    /// It has hooks that run before it is created, and may ask for its state.
    pub early_hooks: bool,
    pub started: bool,
    pub paused: bool,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
    pub cgroup: Option<HostCgroup>,
    pub bandwidth: Bandwidth,
    /// JSON of the OCI `process`, which `exec` starts from.
    pub process: serde_json::Value,
    /// It has a notify socket.
    pub notify: bool,
    /// JSON of the `uidMappings` and `gidMappings` of its user namespace.
    pub mappings: serde_json::Value,
    pub terminal: bool,
}

/// The states of the OCI runtime specification, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The state as the OCI runtime specification shapes it (runtime.md, State), with what runc adds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub pid: i32,
    pub status: Status,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Record {
    #[must_use]
    pub fn state(&self, status: Status) -> State {
        State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid: if status == Status::Stopped { 0 } else { self.pid },
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            owner: self.owner.clone(),
            annotations: self.annotations.clone(),
        }
    }

    /// Where the container's hooks run.
    pub(super) fn hooks_place(&self) -> Place<'_> {
        Place::of(&self.bundle, &self.annotations)
    }

    /// A pidfd of the container's process, unless that has ended.
    #[must_use]
    pub fn process(&self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let (start, zombie) = process_start(self.pid)?;
        (start == self.pid_start && !zombie).then_some(fd)
    }

    #[must_use]
    pub fn status(&self) -> Status {
        match (self.process().is_some(), self.started, self.paused) {
            (false, ..) => Status::Stopped,
            (true, ..) if self.creating => Status::Creating,
            (true, false, _) => Status::Created,
            (true, true, true) => Status::Paused,
            (true, true, false) => Status::Running,
        }
    }
}

/// When a process started (clock ticks since boot; proc(5), stat field 22), and whether it has ended already.
#[must_use]
pub fn process_start(pid: i32) -> Option<(u64, bool)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold anything: fields are counted from behind its closing parenthesis.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((start, matches!(state, "Z" | "X")))
}

/// Waits until a process has ended; false when it has not within `patience`.
pub fn wait_end(process: &OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.is_ok_and(|n| n > 0),
        }
    }
}

/// Whether an id can be a container's (runc's rule).
///
/// # Errors
/// [`ErrorKind::Invalid`].
pub fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+');
    if id.is_empty() || id.len() > MAX_ID || matches!(id, "." | "..") || !id.chars().all(allowed) {
        return Err(Error::new(ErrorKind::Invalid, format!("invalid container ID format: {id}")));
    }
    Ok(())
}

/// A container's folder.
#[derive(Debug, Clone)]
pub struct Folder {
    pub path: PathBuf,
}

impl Folder {
    #[must_use]
    pub fn of(root: &Path, id: &str) -> Self {
        Self { path: root.join(id) }
    }

    fn record_path(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such container.
    pub fn read(&self) -> Result<Record, Error> {
        let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = match fs::read(self.record_path()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::NotFound, format!("container {id} does not exist")));
            }
            Err(error) => return Err(error).context(|| format!("Cannot read the state of container {id}")),
        };
        serde_json::from_slice(&text).context(|| format!("The state of container {id} is damaged"))
    }

    /// # Errors
    /// Those of writing.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let failed = || format!("Cannot write {}", self.record_path().display());
        let text = serde_json::to_vec(record).context(failed)?;
        let next = self.path.join("state.json.next");
        fs::write(&next, text).context(failed)?;
        fs::rename(&next, self.record_path()).context(failed)
    }

    /// Waits until the container is paused no more, or has ended; `record` is then as it is.
    ///
    /// # Errors
    /// Those of reading, and when the folder cannot be watched.
    pub fn await_resume(&self, record: &mut Record) -> Result<(), Error> {
        let failed = || format!("Cannot watch {}", self.path.display());
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).context(failed)?;
        // The record is replaced whenever it changes.
        inotify::add_watch(&changes, &self.path, inotify::WatchFlags::MOVED_TO).context(failed)?;
        loop {
            *record = self.read()?;
            let Some(process) = record.process().filter(|_| record.status() == Status::Paused) else { return Ok(()) };
            let mut fds = [PollFd::new(&changes, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => {}
                polled => drop(polled.context(failed)?),
            }
            let mut events = [0; 4096];
            while rustix::io::read(&changes, &mut events).is_ok_and(|length| length > 0) {}
        }
    }

    /// Holds off other commands on the same container until dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such container.
    pub fn lock(&self) -> Result<File, Error> {
        let id = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let missing = || format!("container {id} does not exist");
        let file = File::open(&self.path).kind(ErrorKind::NotFound, missing)?;
        flock(file.as_fd(), FlockOperation::LockExclusive).context(|| format!("Cannot lock container {id}"))?;
        // It may have been deleted while this waited.
        if !self.path.exists() {
            return Err(Error::new(ErrorKind::NotFound, missing()));
        }
        Ok(file)
    }
}

/// Every container below a root, by id.
///
/// # Errors
/// When the root cannot be read for another reason than that it does not exist.
pub fn list(root: &Path) -> Result<Vec<Record>, Error> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(|| format!("Cannot list {}", root.display())),
    };
    let mut records: Vec<Record> =
        entries.filter_map(|entry| Folder { path: entry.ok()?.path() }.read().ok()).collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_the_root_are_refused() {
        for id in ["", ".", "..", "a/b", "../a", "a b", "a\0b", "ä"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "A-b_c.d+e", "..a", &"x".repeat(1024)] {
            assert!(check_id(id).is_ok(), "{id:?}");
        }
        assert!(check_id(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = i32::try_from(std::process::id()).expect("small");
        let (start, zombie) = process_start(own).expect("lives");
        assert!(start > 0 && !zombie);
        assert_eq!(process_start(i32::MAX), None);
    }
}
