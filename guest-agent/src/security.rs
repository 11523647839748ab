//! Capabilities, rlimits, no_new_privs, oom_score_adj. Everything but `from_spec` allocates nothing.
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit};
use rustix::io;

#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    #[error("Resource limit {name} is given twice")]
    DuplicateRlimit { name: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapabilitySets {
    bounding: u64,
}

impl CapabilitySets {
    /// `None`: all sets empty. Second value: names this kernel does not know, ignored.
    pub fn from_spec(spec: Option<&LinuxCapabilities>) -> (Self, Vec<String>) {
        todo!("{spec:?}")
    }
    /// 1. Before setuid, while CAP_SETPCAP is held.
    pub fn drop_bounding(&self) -> io::Result<()> {
        todo!()
    }
    /// 3. After setuid (with `set_keep_caps(true)` before it): effective, permitted, inheritable, then ambient.
    pub fn apply(&self) -> io::Result<()> {
        todo!()
    }
}

/// 2. Before setuid.
pub fn set_keep_caps(keep: bool) -> io::Result<()> {
    todo!("{keep}")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimits {}

impl Rlimits {
    pub fn from_spec(spec: Option<&[PosixRlimit]>) -> Result<Self, SecurityError> {
        todo!("{spec:?}")
    }
    /// On the calling process.
    pub fn apply(&self) -> io::Result<()> {
        todo!()
    }
}

pub fn set_no_new_privs() -> io::Result<()> {
    todo!()
}

/// Writes /proc/self/oom_score_adj (call while the agent's procfs is in view).
pub fn set_oom_score_adj(value: i32) -> io::Result<()> {
    todo!("{value}")
}
