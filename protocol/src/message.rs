//! The messages. Enums are encoded by position: a change here changes [`crate::VERSION`].

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::SHARED_DIR;

/// First frame of the agent on the RPC connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub magic: [u8; 8],
    pub version: u32,
    /// Package version of the agent, for messages.
    pub agent: String,
    /// Nanoseconds of the guest's CLOCK_BOOTTIME when PID 1 started and when it said hello.
    pub started_ns: u64,
    pub ready_ns: u64,
}

/// The host's answer to [`Hello`]. An agent that is refused powers off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    pub version: u32,
    /// Wall-clock time of the host in nanoseconds since 1970, which the agent sets.
    pub realtime_ns: u64,
    /// Fresh entropy for the guest's pool.
    pub entropy: [u8; 32],
}

/// Names a byte stream; chosen by the host, unique in a sandbox, random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId(pub u64);

/// A request of the host. `id` returns in the [`GuestMessage::Reply`]; replies may come in any order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    pub id: u64,
    pub request: Request,
}

/// What the agent sends after [`Hello`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum GuestMessage {
    Reply { id: u64, result: Result<Reply, AgentError> },
}

/// A container, and in it either its init (`exec` is `None`) or an exec'd process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessRef {
    pub container: String,
    pub exec: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    GuestInfo,
    /// Makes a container whose init waits for [`Request::Start`]. Reply: [`Reply::Created`].
    Create(Box<CreateContainer>),
    /// Lets a created container's init run its command. Replies [`Reply::Done`] once execve succeeded.
    Start {
        container: String,
    },
    /// Runs another process in a running container. Reply: [`Reply::Created`] once execve succeeded.
    Exec(Box<ExecProcess>),
    /// `all`: every process of the container.
    Signal {
        process: ProcessRef,
        signal: i32,
        all: bool,
    },
    /// Replies [`Reply::Exited`] when the process has ended; at once if it already has.
    Wait {
        process: ProcessRef,
    },
    Resize {
        process: ProcessRef,
        size: WindowSize,
    },
    CloseStdin {
        process: ProcessRef,
    },
    /// Reply: [`Reply::Stats`].
    Stats {
        container: String,
    },
    /// Reply: [`Reply::Processes`].
    Processes {
        container: String,
    },
    /// Reply: [`Reply::ProcView`].
    ProcView {
        container: String,
    },
    Pause {
        container: String,
    },
    Resume {
        container: String,
    },
    /// `resources`: JSON of the OCI runtime specification's `linux.resources`; absent fields stay as they are.
    Update {
        container: String,
        resources: Vec<u8>,
    },
    /// Replies [`Reply::Ready`] when the container has said on its notify socket that it is ready, and [`Reply::Done`] when
    /// it has ended without, or has no such socket.
    AwaitReady {
        container: String,
    },
    /// Kills what is left of a container and frees what it used.
    Delete {
        container: String,
    },
    /// Unmounts, syncs and replies [`Reply::Done`]; then the machine ends by the exit port.
    Shutdown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateContainer {
    pub id: String,
    /// JSON of the OCI runtime specification's `config.json`.
    pub spec: Vec<u8>,
    pub rootfs: Rootfs,
    pub stdio: Stdio,
    pub user: UserSpec,
    /// Files bind-mounted over the root filesystem (`/etc/hosts` and the like).
    pub files: Vec<GuestFile>,
    /// Runs the agent's own minimal init as the container's PID 1, with the command as its child (`--init`).
    pub init: bool,
    /// Namespaces of another container of this sandbox that it joins: these take the place of the paths that the
    /// specification's namespaces may have.
    pub joins: Vec<Join>,
    /// JSON of the OCI runtime specification's state, as startContainer hooks read it.
    pub hook_state: Vec<u8>,
}

/// A namespace that a container shares with another one of its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The OCI type: `network`, `ipc`, `uts`, `pid`, `user`, `cgroup`, `time`, `mount`.
    pub namespace: String,
    /// Id of a container whose init has not ended.
    pub container: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecProcess {
    pub process: ProcessRef,
    /// JSON of the OCI runtime specification's `process`.
    pub spec: Vec<u8>,
    pub stdio: Stdio,
    pub user: UserSpec,
    /// The group below the container's own that it is born into. None: the container's, or its init's where that one takes
    /// no processes any more.
    pub cgroup: Option<String>,
}

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserSpec {
    /// The numeric ids in the OCI `process.user`.
    Spec,
    /// Docker's `user[:group]`, by name or number, looked up in the root filesystem's own `/etc/passwd` and
    /// `/etc/group`, supplementary groups and `HOME` included. Empty: root.
    Lookup(String),
}

/// Where a container's root filesystem comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay of EROFS layers, lowest first, that lie one behind the other on one read-only disk.
    Layers { disk: u8, layers: Vec<Extent>, upper: Upper },
    /// A directory of the host, by an absolute path beneath [`SHARED_DIR`]. Bind mounts of the specification have sources
    /// beneath the same directory.
    Shared { path: String },
}

/// A byte range of a disk; both multiples of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

/// The writable layer. Disks are numbered in the order in which the machine was given them (0 is `/dev/vda`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// An ext4 filesystem on a disk of its own.
    Disk { disk: u8 },
    /// A tmpfs of at most this many bytes, gone with the container.
    Tmpfs { size: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFile {
    /// Absolute path in the container.
    pub path: String,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// Streams of a process. With a terminal, `stdin` and `stdout` are its two directions and `stderr` is `None`.
/// A stream that is `None` is `/dev/null`. Streams may be connected before or after the call that names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stdio {
    pub terminal: Option<WindowSize>,
    pub stdin: Option<StreamId>,
    pub stdout: Option<StreamId>,
    pub stderr: Option<StreamId>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Done,
    GuestInfo(GuestInfo),
    /// `pid`: in the guest's own numbering.
    Created {
        pid: u32,
    },
    Exited(ExitStatus),
    Stats(Box<Stats>),
    Processes(Vec<ProcessInfo>),
    Ready,
    ProcView(ProcView),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// The process's exit code, or 128 + n when signal n ended it.
    pub code: u8,
    /// The container's cgroup counted an OOM kill.
    pub oom_killed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestInfo {
    pub kernel: String,
    pub agent: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub uptime_ns: u64,
}

/// Counters of a container's cgroup (kernel: Documentation/admin-guide/cgroup-v2.rst). Bytes and microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub cpu_usage_us: u64,
    pub cpu_user_us: u64,
    pub cpu_system_us: u64,
    pub cpu_periods: u64,
    pub cpu_throttled_periods: u64,
    pub cpu_throttled_us: u64,
    pub memory_current: u64,
    pub memory_limit: Option<u64>,
    pub memory_peak: u64,
    pub memory_file: u64,
    pub memory_anon: u64,
    pub memory_inactive_file: u64,
    pub swap_current: u64,
    pub oom_kills: u64,
    pub pids_current: u64,
    pub pids_limit: Option<u64>,
    pub io_read_bytes: u64,
    pub io_write_bytes: u64,
    pub io_reads: u64,
    pub io_writes: u64,
}

/// One row of `top`; `ticks` in units of 1/100 s, memory in KiB.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessInfo {
    pub pid: u32,
    pub ppid: u32,
    pub uid: u32,
    pub user: String,
    pub state: char,
    pub tty: String,
    pub started_ticks: u64,
    pub cpu_ticks: u64,
    pub rss_kib: u64,
    pub command: String,
}

/// What a container's `/proc` shows of its processes, to somebody in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcView {
    /// `btime` of `/proc/stat`.
    pub boot_seconds: u64,
    pub processes: Vec<ProcFiles>,
}

/// Contents of files below `/proc/PID`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcFiles {
    pub pid: u32,
    pub stat: Vec<u8>,
    pub status: Vec<u8>,
    pub cmdline: Vec<u8>,
}

/// Why a call failed. `message` is one sentence for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    pub kind: ErrorKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// No such container or process.
    NotFound,
    /// The container or process exists already.
    Exists,
    /// The container is in the wrong state (not running, paused, …).
    State,
    /// The request makes no sense.
    Invalid,
    /// The command does not exist in the container (exit code 127).
    CommandNotFound,
    /// The command exists and cannot be run (exit code 126).
    CommandNotExecutable,
    /// The guest's kernel or this agent cannot do it.
    Unsupported,
    /// Anything else.
    Internal,
}

impl std::fmt::Display for AgentError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AgentError {}
