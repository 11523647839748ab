//! The process that `exec` adds to a container: the container's own, with some of it replaced.

use oci_spec::runtime::{Process, Spec};

use super::{SpecError, build, capabilities, options::lay_env_over};

/// Docker's `exec` options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    pub args: Vec<String>,
    /// Laid over the container's.
    pub env: Vec<String>,
    /// Absent: the container's.
    pub workdir: Option<String>,
    pub tty: bool,
    pub privileged: bool,
}

impl ExecOptions {
    /// The process to run in the container that `spec` describes.
    ///
    /// # Errors
    /// [`SpecError::NoCommand`], [`SpecError::Workdir`] and [`SpecError::Nul`].
    pub fn to_process(&self, spec: &Spec) -> Result<Process, SpecError> {
        if self.args.is_empty() {
            return Err(SpecError::NoCommand);
        }
        if self.args.iter().any(|arg| arg.contains('\0')) {
            return Err(SpecError::Nul { what: "the command" });
        }
        let mut process = spec.process().clone().unwrap_or_default();
        let mut env = process.env().clone().unwrap_or_default();
        if self.tty && !env.iter().any(|v| v.starts_with("TERM=")) {
            env.push("TERM=xterm".into());
        }
        process
            .set_args(Some(self.args.clone()))
            .set_env(Some(lay_env_over(env, &self.env)))
            .set_terminal(Some(self.tty));
        if self.workdir.is_some() {
            process.set_cwd(build::check_workdir(self.workdir.as_deref())?.into());
        }
        if self.privileged {
            process.set_capabilities(Some(capabilities::sets(&capabilities::all())));
        }
        Ok(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::RunOptions;

    #[test]
    fn an_exec_keeps_the_container_s_confinement_unless_privileged() {
        let container = RunOptions {
            args: vec!["sleep".into()],
            env: vec!["A=1".into(), "B=2".into()],
            workdir: Some("/srv".into()),
            cap_drop: vec!["ALL".into()],
            ..RunOptions::default()
        };
        let spec = container.to_spec("0123456789abcdef").expect("valid");
        let exec =
            ExecOptions { args: vec!["id".into()], env: vec!["B=3".into(), "A".into()], ..ExecOptions::default() };
        let process = exec.to_process(&spec).expect("valid");
        assert_eq!(process.args().clone().expect("arguments"), ["id"]);
        let env = process.env().clone().expect("variables");
        assert!(env.contains(&"B=3".to_owned()) && !env.iter().any(|v| v.starts_with("A=")), "{env:?}");
        assert_eq!(process.cwd().to_str(), Some("/srv"));
        let bounding = |p: &Process| p.capabilities().as_ref().and_then(|c| c.bounding().as_ref().map(|b| b.len()));
        assert_eq!(bounding(&process), Some(0));
        let more = ExecOptions { privileged: true, tty: true, workdir: Some("/".into()), ..exec };
        let process = more.to_process(&spec).expect("valid");
        assert_eq!(bounding(&process), Some(41));
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.cwd().to_str(), Some("/"));
        assert!(ExecOptions::default().to_process(&spec).is_err());
    }
}
