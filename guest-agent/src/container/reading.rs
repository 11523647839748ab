//! The JSON of the specification, as far as the guest looks at it. What oci-spec reads as the specification demands it is
//! oci-spec's; `process` is read here, where unknown capabilities are left out later with a warning, flags of the scheduler
//! have the specification's names, and no regular expression is needed for a list of CPUs: the agent is copied twice at each
//! start, and an engine for those would be a fifth of it.

use std::collections::HashMap;
use std::path::PathBuf;

use dewar_protocol::ErrorKind;
use oci_spec::runtime::{Hooks, Linux, LinuxIOPriority, Mount, PosixRlimit};
use serde::Deserialize;

use crate::{
    error::{Doing, Failure, Result},
    scheduling::Scheduler,
};

/// `config.json`.
#[derive(Debug, Deserialize)]
pub struct Spec {
    process: Option<Process>,
    pub root: Option<Root>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mounts: Option<Vec<Mount>>,
    pub hooks: Option<Hooks>,
    pub annotations: Option<HashMap<String, String>>,
    pub linux: Option<Linux>,
}

#[derive(Debug, Deserialize)]
pub struct Root {
    pub readonly: Option<bool>,
}

/// `process`; what is not there is the host's affair.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub args: Option<Vec<String>>,
    pub env: Option<Vec<String>>,
    pub cwd: PathBuf,
    #[serde(default)]
    pub user: User,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Option<Vec<PosixRlimit>>,
    pub no_new_privileges: Option<bool>,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub io_priority: Option<LinuxIOPriority>,
    pub scheduler: Option<Scheduler>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// `process.user`. Numbers that are not given are 0, as in runc.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Option<Vec<u32>>,
}

/// `process.capabilities`: names, whatever they are.
#[derive(Debug, Default, Deserialize)]
pub struct Capabilities {
    pub bounding: Option<Vec<String>>,
    pub effective: Option<Vec<String>>,
    pub permitted: Option<Vec<String>>,
    pub inheritable: Option<Vec<String>>,
    pub ambient: Option<Vec<String>>,
}

/// `process.execCPUAffinity`: lists of CPUs.
#[derive(Debug, Deserialize)]
pub struct CpuAffinity {
    pub initial: Option<String>,
    #[serde(rename = "final")]
    pub last: Option<String>,
}

/// Reads a `config.json`, which must have a process.
///
/// # Errors
/// `Invalid`, saying what does not parse.
pub fn spec(json: &[u8]) -> Result<(Spec, Process)> {
    let failed = || "The container's specification does not parse".to_owned();
    let mut spec: Spec = serde_json::from_slice(json).doing_as(ErrorKind::Invalid, failed)?;
    let process = spec.process.take().ok_or_else(|| Failure::invalid("The specification has no process"))?;
    Ok((spec, process))
}

/// Reads a `process` alone.
///
/// # Errors
/// `Invalid`, saying what does not parse.
pub fn process(json: &[u8]) -> Result<Process> {
    serde_json::from_slice(json).doing_as(ErrorKind::Invalid, || "The process's specification does not parse".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_scheduler_have_the_specification_s_names() {
        let json = br#"{"cwd":"/","user":{"uid":0,"gid":0},
            "scheduler":{"policy":"SCHED_DEADLINE","flags":["SCHED_FLAG_DL_OVERRUN"]}}"#;
        assert!(process(json).expect("parses").scheduler.is_some());
        assert!(process(br#"{"cwd":"/","user":{},"scheduler":{"nice":1}}"#).is_err());
    }

    #[test]
    fn a_container_has_a_process() {
        assert!(spec(br#"{"ociVersion":"1.2.0","process":null}"#).is_err());
        assert!(spec(br#"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":0,"gid":0}}}"#).is_ok());
        assert!(spec(b"{").is_err());
    }

    #[test]
    fn what_is_of_another_kind_is_refused() {
        for json in [
            r#"{"cwd":"/","capabilities":{"bounding":[5]}}"#,
            r#"{"cwd":"/","user":{"uid":-1}}"#,
            r#"{"cwd":"/","args":"sh"}"#,
            r#"{"args":["sh"]}"#,
        ] {
            assert!(process(json.as_bytes()).is_err(), "{json}");
        }
    }
}
