//! What a container was asked to be, and what became of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dewar_protocol::{GuestFile, UserSpec};
use serde::{Deserialize, Serialize};

use crate::engine::EngineChoice;

/// `config.json`: fixed when the container is made, but for the machine's size, which follows changed limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub id: String,
    pub name: String,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    pub image: ImageRef,
    /// EROFS files, lowest layer first, with their lengths (multiples of 4096).
    pub layers: Vec<(PathBuf, u64)>,
    /// Path and arguments, for display.
    pub command: Vec<String>,
    pub engine: EngineChoice,
    /// Another guest kernel than the installed one.
    pub kernel: Option<PathBuf>,
    pub vcpus: u8,
    pub memory_mib: u64,
    pub writable: Writable,
    pub terminal: bool,
    pub open_stdin: bool,
    pub init: bool,
    pub user: UserSpec,
    pub files: Vec<GuestFile>,
    pub labels: BTreeMap<String, String>,
    pub stop_signal: i32,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: u32,
    /// Removed by its supervisor when it ends (`--rm`).
    pub auto_remove: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// As the user wrote it.
    pub name: String,
    pub id: String,
}

/// The writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Writable {
    /// A sparse ext4 disk of this many bytes; survives stop and start.
    Disk { size: u64 },
    /// A tmpfs in the guest of at most this many bytes; gone when the container stops.
    Tmpfs { size: u64 },
}

/// `state.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    pub status: Status,
    /// The supervisor, while there is one.
    pub pid: Option<i32>,
    /// The engine that runs or last ran it.
    pub engine: Option<EngineChoice>,
    pub exit_code: u8,
    pub oom_killed: bool,
    /// Why it ended, when that was not its process's own doing.
    pub error: Option<String>,
    /// Nanoseconds since 1970.
    pub started_ns: Option<u64>,
    pub finished_ns: Option<u64>,
}

impl ContainerState {
    #[must_use]
    pub fn created() -> Self {
        Self {
            status: Status::Created,
            pid: None,
            engine: None,
            exit_code: 0,
            oom_killed: false,
            error: None,
            started_ns: None,
            finished_ns: None,
        }
    }
}

/// Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Exited,
}

impl Status {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }

    /// Has a supervisor and a machine.
    #[must_use]
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}
