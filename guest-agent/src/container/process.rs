//! What a process is to be: OCI `process`, read and checked in the agent.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use dewar_protocol::UserSpec;
use oci_spec::runtime::Process;

use crate::{
    error::{Doing, Failure, Result},
    machine,
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
}

impl ProcessPlan {
    /// Reads the specification.
    pub fn from_spec(process: &Process, user: &UserSpec) -> Result<Self> {
        refuse_unsupported(process)?;
        let (capabilities, left_out) = CapabilitySets::from_spec(process.capabilities().as_ref());
        left_out.iter().for_each(|sentence| machine::say(sentence));
        let arguments = strings(process.args().as_deref().unwrap_or_default(), "argument")?;
        if arguments.is_empty() {
            return Err(Failure::invalid("The process has no arguments"));
        }
        Ok(Self {
            arguments,
            environment: strings(process.env().as_deref().unwrap_or_default(), "environment variable")?,
            cwd: working_directory(process.cwd())?,
            user: user.clone(),
            uid: process.user().uid(),
            gid: process.user().gid(),
            groups: process.user().additional_gids().clone().unwrap_or_default(),
            umask: process.user().umask().unwrap_or(DEFAULT_UMASK) & 0o777,
            capabilities,
            rlimits: Rlimits::from_spec(process.rlimits().as_deref())
                .doing_as(dewar_protocol::ErrorKind::Invalid, || "The resource limits cannot be set".into())?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            oom_score_adj: process.oom_score_adj(),
        })
    }

    /// Whether the environment sets HOME.
    pub fn has_home(&self) -> bool {
        self.environment.iter().any(|variable| variable.to_bytes().starts_with(b"HOME="))
    }
}

fn refuse_unsupported(process: &Process) -> Result<()> {
    let given = [
        ("apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|profile| !profile.is_empty())),
        ("selinuxLabel", process.selinux_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("ioPriority", process.io_priority().is_some()),
        ("scheduler", process.scheduler().is_some()),
        ("execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Failure::unsupported(format!("The process setting {name} is not supported"))),
        None => Ok(()),
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

fn strings(values: &[String], what: &str) -> Result<Vec<CString>> {
    values
        .iter()
        .map(|value| CString::new(value.as_str()))
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Failure::invalid(format!("An {what} of the process holds a null byte")))
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::*;

    fn plan(json: &str) -> Result<ProcessPlan> {
        ProcessPlan::from_spec(&serde_json::from_str(json).expect("parses"), &UserSpec::Spec)
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
        let profile = r#"{"args":["a"],"cwd":"/","user":{"uid":0,"gid":0},"apparmorProfile":"x"}"#;
        assert_eq!(kind(profile), Some(ErrorKind::Unsupported));
    }
}
