//! Docker's options to an OCI runtime specification.
//!
//! [`RunOptions`] is what a user asked for, completed from the image's configuration by [`RunOptions::merge_image`];
//! [`RunOptions::to_spec`] is what docker would hand to runc for it on cgroup v2, with docker's defaults and docker's
//! words for what is wrong. Names of users are not looked up here: the image's files are hostile and live in the guest
//! ([`dewar_protocol::UserSpec`]). How large the machine is, is not decided here either.
//!
//! Pure functions, but for a seccomp profile that an option names, variables that `-e NAME` takes from the environment,
//! and random names.

mod build;
mod capabilities;
mod exec;
mod mounts;
mod names;
mod namespaces;
mod options;
pub mod parse;
mod resources;
pub mod seccomp;
mod security;
mod signal;
mod update;

pub use exec::ExecOptions;
pub use names::random_name;
pub use namespaces::{IdMaps, IdRange, TimeOffset, UserNamespace};
pub use options::RunOptions;
pub use parse::{Tmpfs, Ulimit};
pub use security::{SeccompChoice, SecurityOptions};
pub use update::UpdateOptions;

use crate::{Error, ErrorKind};

/// What is wrong with options, in docker's words where docker has the same rule.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    #[error("invalid size: '{text}'")]
    Size { text: String },
    #[error("failed to parse {text} as a rational number")]
    Cpus { text: String },
    #[error("value is too precise")]
    CpusPrecision,
    #[error("Range of CPUs is from 0.01 to {most}.00")]
    CpuRange { most: u32 },
    #[error("Invalid value {text} for cpuset cpus")]
    Cpuset { text: String },
    #[error("Requested CPUs are not available - requested {text}, available: 0-{last}")]
    CpusetRange { text: String, last: u64 },
    #[error("Minimum memory limit allowed is 6MB")]
    MemoryTooSmall,
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    #[error("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")]
    SwapHoldsMemory,
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveMemory,
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    CpuQuota,
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    CpuPeriod,
    #[error("Requested memory nodes are not available - requested {text}, available: 0")]
    CpusetMems { text: String },
    #[error("Range of blkio weight is from 10 to 1000")]
    BlkioWeight,
    #[error("invalid USER mode: {text}: only host, auto and auto:size=N are there")]
    UserNamespace { text: String },
    #[error("invalid id mapping: {text}: it has to be CONTAINER:MACHINE:SIZE")]
    IdMap { text: String },
    #[error("the id mappings cannot be made: {what}")]
    IdMaps { what: &'static str },
    #[error("--userns and --uidmap or --gidmap exclude each other")]
    IdMapsBesideUserNamespace,
    #[error("invalid time offset: {text}: it has to be monotonic=SECONDS or boottime=SECONDS")]
    TimeOffset { text: String },
    #[error("invalid ulimit argument: {text}")]
    Ulimit { text: String },
    #[error("invalid ulimit type: {name}")]
    UlimitType { name: String },
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    UlimitOrder { soft: i64, hard: i64 },
    #[error("invalid mount path: '{path}' mount path must be absolute")]
    MountPath { path: String },
    #[error("invalid specification: destination can't be '/'")]
    MountRoot,
    #[error("invalid tmpfs option [\"{option}\"]")]
    TmpfsOption { option: String },
    #[error("Duplicate mount point: {path}")]
    DuplicateMount { path: String },
    #[error("invalid environment variable: {text}")]
    Env { text: String },
    #[error("no variable name on line '{line}'")]
    EnvFileName { line: String },
    #[error("variable '{name}' contains whitespaces")]
    EnvFileSpace { name: String },
    #[error("invalid utf8 bytes at line {line}")]
    EnvFileUtf8 { line: usize },
    #[error("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name { name: String },
    #[error("invalid hostname format: {name}")]
    Hostname { name: String },
    #[error("the working directory '{path}' is invalid, it needs to be an absolute path")]
    Workdir { path: String },
    #[error("no command specified: neither the image nor the arguments name one")]
    NoCommand,
    #[error("invalid {list}: unknown capability: \"{name}\"")]
    Capability { list: &'static str, name: String },
    #[error("invalid --security-opt: \"{text}\"")]
    SecurityOption { text: String },
    #[error("--security-opt {text} cannot be honoured: the guest applies no {module} profiles; use {instead}")]
    SecurityModule { text: String, module: &'static str, instead: &'static str },
    #[error("opening seccomp profile ({path}) failed")]
    ProfileFile { path: String, source: std::io::Error },
    #[error("Decoding seccomp profile failed")]
    Profile { source: serde_json::Error },
    #[error("invalid seccomp profile: {what}")]
    ProfileRule { what: String },
    #[error("sysctl '{name}' is not allowed")]
    Sysctl { name: String },
    #[error("Invalid signal: {name}")]
    Signal { name: String },
    #[error("invalid argument: {what} contains a NUL byte")]
    Nul { what: &'static str },
}

impl From<SpecError> for Error {
    fn from(error: SpecError) -> Self {
        let message = error.to_string();
        match error {
            SpecError::ProfileFile { source, .. } => Self::with(ErrorKind::Invalid, message, source),
            SpecError::Profile { source } => Self::with(ErrorKind::Invalid, message, source),
            _ => Self::new(ErrorKind::Invalid, message),
        }
    }
}
