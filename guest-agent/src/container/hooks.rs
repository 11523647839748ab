//! Hooks that run in the guest: `startContainer`, whose programs lie in the container. The programs of all others lie on the
//! host, which runs them; they mean nothing here.

use std::{ffi::CString, time::Duration};

use oci_spec::runtime;

use super::process::strings;
use crate::error::{Failure, Result};

/// A program to run before the container's command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub path: CString,
    pub arguments: Vec<CString>,
    /// None of its own: the container's.
    pub environment: Option<Vec<CString>>,
    pub timeout: Option<Duration>,
}

/// The hooks that run in the guest, in their order.
///
/// # Errors
/// `Invalid` for hooks that cannot be run.
pub fn from_spec(hooks: Option<&runtime::Hooks>) -> Result<Vec<Hook>> {
    let Some(hooks) = hooks else { return Ok(Vec::new()) };
    hooks.start_container().iter().flatten().map(hook).collect()
}

fn hook(hook: &runtime::Hook) -> Result<Hook> {
    let path = hook.path();
    if !path.is_absolute() {
        return Err(Failure::invalid(format!("The path of the hook {} is not absolute", path.display())));
    }
    let timeout = match hook.timeout() {
        None => None,
        Some(seconds) => Some(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
            Failure::invalid(format!("The timeout of the hook {} must be greater than zero", path.display()))
        })?),
    };
    let name = path.to_string_lossy().into_owned();
    let given = hook.args().clone().filter(|arguments| !arguments.is_empty());
    let text = |values: &[String]| strings(values, "argument or variable of a hook");
    let path = text(std::slice::from_ref(&name))?.pop().unwrap_or_default();
    Ok(Hook {
        path,
        arguments: text(&given.unwrap_or_else(|| vec![name]))?,
        environment: hook.env().as_deref().map(text).transpose()?,
        timeout: timeout.map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use dewar_protocol::ErrorKind;

    use super::*;

    fn read(json: &str) -> std::result::Result<Vec<Hook>, ErrorKind> {
        from_spec(Some(&serde_json::from_str(json).expect("parses"))).map_err(|failure| failure.kind)
    }

    #[test]
    fn hooks_of_the_start_are_read_and_those_of_the_host_passed_over() {
        let hooks = read(
            r#"{"prestart":[{"path":"/x"}],"createRuntime":[{"path":"/x"}],"poststop":[{"path":"/x"}],
                "createContainer":[{"path":"/x"}],
                "startContainer":[{"path":"/bin/h","args":["h","-v"],"env":["A=b"],"timeout":5},{"path":"/bin/i"}]}"#,
        )
        .expect("valid");
        assert_eq!(hooks.len(), 2);
        assert_eq!((hooks[0].arguments.len(), hooks[0].timeout), (2, Some(Duration::from_secs(5))));
        assert_eq!(hooks[1].arguments, [CString::new("/bin/i").expect("no null")]);
    }

    #[test]
    fn hooks_that_cannot_run_are_refused() {
        assert_eq!(read(r#"{"startContainer":[{"path":"x"}]}"#), Err(ErrorKind::Invalid));
        assert_eq!(read(r#"{"startContainer":[{"path":"/x","timeout":0}]}"#), Err(ErrorKind::Invalid));
        assert_eq!(read(r#"{"startContainer":[{"path":"/x","env":["a\u0000b"]}]}"#), Err(ErrorKind::Invalid));
    }
}
