//! Hooks that run on the host (OCI runtime specification, config.md, POSIX-platform Hooks): prestart, createRuntime,
//! createContainer, poststart and poststop. startContainer's run in the guest, by the agent.
//!
//! The path of a createContainer hook resolves in the runtime's namespace, where its program and libraries are: the guest has
//! neither. It runs in the namespaces of the process that stands for the container on the host ([`super::view`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::signals;
use super::state::State;
use crate::{Error, ErrorKind, ResultExt};

/// How much of a failed hook's messages is shown.
const MESSAGES: u64 = 4096;

/// One hook, as in `config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(default)]
    pub args: Vec<String>,
    /// None of its own: this process's.
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<i64>,
}

/// The hooks of a container that run on the host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// The names of their lists.
const ON_THE_HOST: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

impl Hooks {
    fn all(&self) -> impl Iterator<Item = &Hook> {
        [&self.prestart, &self.create_runtime, &self.create_container, &self.poststart, &self.poststop]
            .into_iter()
            .flatten()
    }

    /// Whether some run before the container is created, who may ask for its state.
    pub(super) fn is_early(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

/// When hooks run, and what their failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    Prestart,
    CreateRuntime,
    CreateContainer,
    Poststart,
    Poststop,
}

impl Moment {
    fn as_str(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

/// Takes the host's hooks out of a specification.
///
/// # Errors
/// [`ErrorKind::Invalid`] for one without an absolute path or with a timeout that is none.
pub(super) fn take(spec: &mut Value) -> Result<Hooks, Error> {
    let Some(section) = spec.get_mut("hooks").and_then(Value::as_object_mut) else { return Ok(Hooks::default()) };
    let host: serde_json::Map<String, Value> = ON_THE_HOST
        .iter()
        .filter_map(|name| {
            section.remove(*name).filter(|value| !value.is_null()).map(|value| ((*name).to_owned(), value))
        })
        .collect();
    let hooks: Hooks =
        serde_json::from_value(Value::Object(host)).kind(ErrorKind::Invalid, || "hooks do not parse".into())?;
    for hook in hooks.all() {
        let path = hook.path.display();
        if !hook.path.is_absolute() {
            return Err(Error::new(ErrorKind::Invalid, format!("the hook {path} has no absolute path")));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            return Err(Error::new(ErrorKind::Invalid, format!("the hook {path} has a timeout that is not above 0")));
        }
    }
    Ok(hooks)
}

/// A state as hooks read it.
pub(super) fn state_json(state: &State) -> Vec<u8> {
    serde_json::to_vec(state).unwrap_or_default()
}

/// Where hooks run, and where their output goes.
#[derive(Debug)]
pub(super) struct Place<'a> {
    folder: &'a Path,
    /// Files of the annotations that crun knows.
    stdout: Option<&'a str>,
    stderr: Option<&'a str>,
}

impl<'a> Place<'a> {
    pub(super) fn of(folder: &'a Path, annotations: &'a BTreeMap<String, String>) -> Self {
        let file = |stream| annotations.get(&format!("run.oci.hooks.{stream}")).map(String::as_str);
        Self { folder, stdout: file("stdout"), stderr: file("stderr") }
    }
}

fn appended(path: &str) -> Result<File, Error> {
    let file = File::options().append(true).create(true).mode(0o600).open(path);
    file.context(|| format!("cannot open {path} for a hook's output"))
}

/// Runs hooks in their order, with the state on standard input.
///
/// # Errors
/// The first failure, which ends the row; after the container's start or end hooks that fail are warned of, and the
/// others run all the same.
pub(super) fn run(moment: Moment, hooks: &[Hook], place: &Place<'_>, state: &[u8]) -> Result<(), Error> {
    for (number, hook) in hooks.iter().enumerate() {
        let result = run_one(hook, place, state).map_err(|error| {
            let text = format!("error running {} hook #{number}: {}", moment.as_str(), error.chain());
            Error::new(ErrorKind::Internal, text)
        });
        match result {
            Err(error) if matches!(moment, Moment::Poststart | Moment::Poststop) => {
                eprintln!("dewar-oci: {}", error.chain());
            }
            other => other?,
        }
    }
    Ok(())
}

fn run_one(hook: &Hook, place: &Place<'_>, state: &[u8]) -> Result<(), Error> {
    let name = hook.path.display();
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    // Messages go to a file: a child of the hook that keeps the descriptor holds nobody up.
    let mut messages = tempfile::tempfile().context(|| "Cannot make a temporary file".into())?;
    let stderr = match place.stderr {
        Some(path) => appended(path)?,
        None => messages.try_clone().context(|| "Cannot duplicate a descriptor".into())?,
    };
    let stdout = place.stdout.map(appended).transpose()?.map_or_else(Stdio::null, Stdio::from);
    command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).process_group(0);
    // After the container's end there may be no bundle left.
    command.current_dir(if place.folder.is_dir() { place.folder } else { Path::new("/") });
    signals::unblocked(&mut command);
    let mut child = command.spawn().context(|| format!("cannot run {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state breaks the pipe, which is its own affair.
        let _ = stdin.write_all(state);
    }
    let limit = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    if !ended(&child, limit)? {
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        return Err(Error::new(ErrorKind::Internal, format!("{name} did not end within its timeout")));
    }
    let status = child.wait().context(|| format!("cannot wait for {name}"))?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let _ = std::io::Seek::rewind(&mut messages);
    let _ = messages.take(MESSAGES).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    Err(Error::new(ErrorKind::Internal, format!("{name}: {status}, stderr: {}", text.trim())))
}

/// Waits for a child's end; false when it has not come within `limit`.
fn ended(child: &Child, limit: Option<Duration>) -> Result<bool, Error> {
    let Some(limit) = limit else { return Ok(true) };
    let failed = || "cannot watch a hook".to_owned();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::new(ErrorKind::Internal, failed()))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).context(failed)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process.as_fd(), PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map(|n| n > 0).context(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { path: "/bin/sh".into(), args, env: Some(vec!["A=1".into()]), timeout }
    }

    fn place(folder: &str) -> Place<'_> {
        Place { folder: Path::new(folder), stdout: None, stderr: None }
    }

    #[test]
    fn annotations_say_where_the_output_of_hooks_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let annotations = ["stdout", "stderr"].map(|name| (format!("run.oci.hooks.{name}"), file(name)));
        let annotations = BTreeMap::from(annotations);
        let hooks = [shell("echo out; echo err >&2", None), shell("pwd", None)];
        run(Moment::Prestart, &hooks, &Place::of(dir.path(), &annotations), b"{}").expect("works");
        let read = |name: &str| std::fs::read_to_string(file(name)).expect("is there");
        assert_eq!((read("stdout"), read("stderr")), (format!("out\n{}\n", dir.path().display()), "err\n".to_owned()));
    }

    #[test]
    fn hooks_read_the_state_in_their_own_environment_and_their_failure_is_told() {
        run(Moment::Prestart, &[shell("test $A = 1 && grep -q box", None)], &place("/"), b"{\"id\":\"box\"}")
            .expect("works");
        let error = run(Moment::CreateRuntime, &[shell("echo why >&2; exit 3", Some(10))], &place("/"), b"{}")
            .expect_err("fails");
        assert!(error.chain().contains("createRuntime hook #0") && error.chain().contains("why"), "{}", error.chain());
        assert!(
            run(Moment::Prestart, &[shell("cat >/dev/null; read x < /dev/zero", Some(1))], &place("/"), b"{}").is_err()
        );
    }

    #[test]
    fn after_the_end_the_next_hook_runs_all_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let made = dir.path().join("made");
        let hooks = [shell("exit 1", None), shell(&format!(": > {}", made.display()), None)];
        run(Moment::Poststop, &hooks, &Place { folder: &dir.path().join("gone"), stdout: None, stderr: None }, b"{}")
            .expect("only warned of");
        assert!(made.exists());
    }

    #[test]
    fn the_host_s_hooks_leave_the_guest_s_specification() {
        let mut spec = serde_json::json!({"hooks": {"prestart": [{"path": "/bin/true"}], "createContainer": [{"path": "/y"}], "startContainer": [{"path": "/x"}]}});
        let hooks = take(&mut spec).expect("valid");
        assert_eq!((hooks.prestart.len(), hooks.create_container.len()), (1, 1));
        assert_eq!(spec, serde_json::json!({"hooks": {"startContainer": [{"path": "/x"}]}}));
        for wrong in [r#"{"path":"true"}"#, r#"{"path":"/bin/true","timeout":0}"#, "{}"] {
            let hook: Value = serde_json::from_str(wrong).expect("JSON");
            assert!(take(&mut serde_json::json!({"hooks": {"poststop": [hook]}})).is_err(), "{wrong}");
        }
    }
}
