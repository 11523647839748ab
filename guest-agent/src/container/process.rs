//! What a process is to be: OCI `process`, read and checked in the agent.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use dewar_protocol::UserSpec;

use super::reading;
use crate::{
    error::{Doing, Failure, Result},
    lsm::Labels,
    machine,
    scheduling::Scheduling,
    security::{CapabilitySets, Rlimits},
};

/// Docker's and runc's mask where the specification gives none.
const DEFAULT_UMASK: u32 = 0o022;

/// A process that can be made.
pub struct ProcessPlan {
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub cwd: PathBuf,
    pub user: UserSpec,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub capabilities: CapabilitySets,
    pub rlimits: Rlimits,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub scheduling: Scheduling,
    pub labels: Labels,
}

/// Which process of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    /// `execCPUAffinity` is of these only.
    Exec,
}

impl ProcessPlan {
    /// Reads the specification.
    pub fn from_spec(process: &reading::Process, user: &UserSpec, role: Role) -> Result<Self> {
        let (capabilities, left_out) = CapabilitySets::from_spec(process.capabilities.as_ref());
        left_out.iter().for_each(|sentence| machine::say(sentence));
        let affinity = process.exec_cpu_affinity.as_ref().filter(|_| role == Role::Exec);
        let arguments = strings(process.args.as_deref().unwrap_or_default(), "argument")?;
        if arguments.is_empty() {
            return Err(Failure::invalid("The process has no arguments"));
        }
        Ok(Self {
            arguments,
            environment: strings(process.env.as_deref().unwrap_or_default(), "environment variable")?,
            cwd: working_directory(&process.cwd)?,
            user: user.clone(),
            uid: process.user.uid,
            gid: process.user.gid,
            groups: process.user.additional_gids.clone().unwrap_or_default(),
            umask: process.user.umask.unwrap_or(DEFAULT_UMASK) & 0o777,
            capabilities,
            rlimits: Rlimits::from_spec(process.rlimits.as_deref())
                .doing_as(dewar_protocol::ErrorKind::Invalid, || "The resource limits cannot be set".into())?,
            no_new_privileges: process.no_new_privileges.unwrap_or(false),
            oom_score_adj: process.oom_score_adj,
            scheduling: Scheduling::from_spec(process.scheduler.as_ref(), process.io_priority.as_ref(), affinity)?,
            labels: Labels::from_spec(process.apparmor_profile.as_ref(), process.selinux_label.as_ref())?,
        })
    }

    /// Whether the environment sets HOME.
    pub fn has_home(&self) -> bool {
        // The last one counts; an empty one is none, as in runc.
        let mut homes = self.environment.iter().rev().filter_map(|variable| variable.to_bytes().strip_prefix(b"HOME="));
        homes.next().is_some_and(|home| !home.is_empty())
    }
}

fn working_directory(cwd: &Path) -> Result<PathBuf> {
    if cwd.as_os_str().is_empty() {
        return Ok(PathBuf::from("/"));
    }
    if !cwd.is_absolute() {
        return Err(Failure::invalid(format!("The working directory {} is not an absolute path", cwd.display())));
    }
    Ok(cwd.to_owned())
}

/// Texts as C has them.
pub fn strings(values: &[String], what: &str) -> Result<Vec<CString>> {
    values
        .iter()
        .map(|value| CString::new(value.as_str()))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Failure::invalid(format!("An {what} of the process holds a null byte")))
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::{super::reading, *};

    fn plan(json: &str) -> Result<ProcessPlan> {
        ProcessPlan::from_spec(&reading::process(json.as_bytes())?, &UserSpec::Spec, Role::Exec)
    }

    #[test]
    fn a_process_is_read() {
        let plan = plan(
            r#"{"args":["sh","-c","true"],"cwd":"/tmp","env":["A=b","HOME=/x"],"noNewPrivileges":true,
                "user":{"uid":1,"gid":2,"additionalGids":[3],"umask":63}}"#,
        )
        .expect("valid");
        assert_eq!((plan.uid, plan.gid, plan.groups.as_slice(), plan.umask), (1, 2, [3].as_slice(), 63));
        assert!(plan.has_home() && plan.no_new_privileges);
        assert_eq!(plan.arguments.len(), 3);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        let kind = |json| plan(json).err().map(|failure| failure.kind);
        assert_eq!(kind(r#"{"args":[],"cwd":"/","user":{"uid":0,"gid":0}}"#), Some(ErrorKind::Invalid));
        assert_eq!(kind(r#"{"args":["a"],"cwd":"relative","user":{"uid":0,"gid":0}}"#), Some(ErrorKind::Invalid));
        assert_eq!(kind(r#"{"args":["a\u0000b"],"cwd":"/","user":{"uid":0,"gid":0}}"#), Some(ErrorKind::Invalid));
        let idle = r#"{"args":["a"],"cwd":"/","user":{"uid":0,"gid":0},"scheduler":{"policy":"SCHED_ISO"}}"#;
        assert_eq!(kind(idle), Some(ErrorKind::Unsupported));
        let affinity = r#"{"args":["a"],"cwd":"/","user":{"uid":0,"gid":0},"execCPUAffinity":{"final":"5-3"}}"#;
        assert_eq!(kind(affinity), Some(ErrorKind::Invalid));
    }
}
