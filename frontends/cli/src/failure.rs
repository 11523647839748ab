//! Errors on their way to the user: one sentence, what to do, an exit code.

use std::io::Write;
use std::process::ExitCode;

use dewar_runtime::ErrorKind;

/// Docker's code for "the tool failed, not the command in the container".
pub const TOOL_FAILED: u8 = 125;

/// Something is wrong with the command line itself.
#[derive(Debug, thiserror::Error)]
#[error("{message}\nRun '{command} --help' for more information")]
pub struct Usage {
    pub message: String,
    /// `dewar run`
    pub command: String,
}

/// An error that ends with an exit code other than 1.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}{hint}")]
pub struct WithCode {
    code: u8,
    hint: String,
    error: anyhow::Error,
}

/// For verbs that run a command in a container: 127 when it was not found, 126 when it cannot be run, else `otherwise`.
pub fn with_code(error: anyhow::Error, otherwise: u8) -> anyhow::Error {
    let code = match kind(&error) {
        Some(ErrorKind::CommandNotFound) => 127,
        Some(ErrorKind::CommandNotExecutable) => 126,
        _ => otherwise,
    };
    WithCode { code, hint: String::new(), error }.into()
}

/// For `run` and `create`: as [`with_code`] with 125, and where to read on when an option made no sense.
pub fn of_new_container(error: anyhow::Error, verb: &str) -> anyhow::Error {
    if kind(&error) == Some(ErrorKind::Invalid) {
        let hint = format!("\nRun 'dewar {verb} --help' for more information");
        return WithCode { code: TOOL_FAILED, hint, error }.into();
    }
    with_code(error, TOOL_FAILED)
}

fn kind(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<dewar_runtime::Error>().map(dewar_runtime::Error::kind)
}

/// Whether `error` says that something does not exist.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    kind(error) == Some(ErrorKind::NotFound)
}

/// Prints the whole chain of causes once.
pub fn print(error: &anyhow::Error) {
    // Standard error may be closed; there is nobody left to tell then.
    let _ = writeln!(std::io::stderr(), "dewar: {error:#}");
}

/// Prints an error and answers the exit code that belongs to it.
pub fn report(error: &anyhow::Error) -> ExitCode {
    print(error);
    let code = match error.downcast_ref::<WithCode>() {
        Some(coded) => coded.code,
        None if error.is::<Usage>() => TOOL_FAILED,
        None => 1,
    };
    ExitCode::from(code)
}

/// Does the same to each name; says what went wrong with any, and answers 1 when anything did.
pub fn for_each(names: &[String], mut act: impl FnMut(&str) -> anyhow::Result<()>) -> u8 {
    let mut code = 0;
    for name in names {
        if let Err(error) = act(name) {
            print(&error);
            code = 1;
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: anyhow::Error) -> Option<u8> {
        error.downcast_ref::<WithCode>().map(|c| c.code)
    }

    #[test]
    fn exit_codes_are_docker_s() {
        let error = |kind| anyhow::Error::from(dewar_runtime::Error::new(kind, "text"));
        assert_eq!(code(with_code(error(ErrorKind::CommandNotFound), 125)), Some(127));
        assert_eq!(code(with_code(error(ErrorKind::CommandNotExecutable), 1)), Some(126));
        assert_eq!(code(with_code(error(ErrorKind::Machine), 125)), Some(125));
        assert_eq!(code(with_code(anyhow::anyhow!("other"), 1)), Some(1));
        let invalid = of_new_container(error(ErrorKind::Invalid), "run");
        assert_eq!(invalid.to_string(), "text\nRun 'dewar run --help' for more information");
        assert_eq!(code(invalid), Some(125));
        assert_eq!(code(of_new_container(error(ErrorKind::CommandNotFound), "run")), Some(127));
    }

    #[test]
    fn every_name_is_tried_and_any_failure_counts() {
        let names = ["a", "bad", "c"].map(str::to_owned);
        let mut seen = Vec::new();
        let code = for_each(&names, |name| {
            seen.push(name.to_owned());
            if name == "bad" { Err(anyhow::anyhow!("no")) } else { Ok(()) }
        });
        assert_eq!((code, seen), (1, names.to_vec()));
        assert_eq!(for_each(&[], |_| Ok(())), 0);
    }
}
