//! Running startContainer hooks: in the container, as its user, with its state on standard input. The first that fails is
//! the last, and the container does not start.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, SeekFrom, memfd_create, seek},
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, setpgid, wait},
};

use crate::{
    container::hooks::Hook,
    error::{Doing, Failure, Result},
    sys::{
        process::{self, CStringArray},
        signal,
    },
};

/// Most that an error shows of a hook's output.
const SHOWN: usize = 1024;

/// What hooks need, made while the process may still make it.
pub struct Hooks<'a> {
    hooks: &'a [Hook],
    state: OwnedFd,
    output: OwnedFd,
}

impl<'a> Hooks<'a> {
    /// `state`: what hooks read. `None` without hooks.
    pub fn prepare(hooks: &'a [Hook], state: &[u8]) -> Result<Option<Self>> {
        if hooks.is_empty() {
            return Ok(None);
        }
        let failed = || "Preparing the container's state for its hooks failed".to_owned();
        let file = || memfd_create(c"dewar-hook", MemfdFlags::CLOEXEC).doing(failed);
        let (input, output) = (file()?, file()?);
        let mut left = state;
        while !left.is_empty() {
            let written = rustix::io::write(&input, left).doing(failed)?;
            left = left.get(written..).unwrap_or_default();
        }
        Ok(Some(Self { hooks, state: input, output }))
    }

    /// Runs them one after the other; those without an environment have the container's. `confine`: each hook's last step
    /// before it is one.
    ///
    /// # Errors
    /// Of the first that cannot be run, ends with another code than 0, or takes too long.
    pub fn run(&self, inherited: &[CString], confine: &dyn Fn() -> Result<()>) -> Result<()> {
        signal::block_only(&[libc::SIGCHLD]).doing(|| "Blocking SIGCHLD failed".into())?;
        self.hooks.iter().try_for_each(|hook| self.run_one(hook, inherited, confine))?;
        signal::block_only(&[]).doing(|| "Resetting the signal mask failed".into())
    }

    fn run_one(&self, hook: &Hook, inherited: &[CString], confine: &dyn Fn() -> Result<()>) -> Result<()> {
        let name = hook.path.to_string_lossy();
        let failed = || format!("Running the startContainer hook {name} failed");
        for file in [&self.state, &self.output] {
            seek(file, SeekFrom::Start(0)).doing(failed)?;
        }
        rustix::fs::ftruncate(&self.output, 0).doing(failed)?;
        let arguments = CStringArray::new(hook.arguments.clone());
        let environment = CStringArray::new(hook.environment.clone().unwrap_or_else(|| inherited.to_vec()));
        let Some(pid) = process::fork().doing(failed)? else {
            // To its standard error, which the error shows.
            match self.become_hook(confine) {
                Ok(()) => eprintln!("{}", process::execute(&hook.path, &arguments, &environment)),
                Err(failure) => eprintln!("{}", failure.sentence()),
            }
            process::exit_now(127)
        };
        match await_end(pid, hook.timeout) {
            Some(status) if status.exit_status() == Some(0) => Ok(()),
            Some(status) => {
                let code = super::reaper::status_code(status);
                Err(Failure::state(format!(
                    "The startContainer hook {name} failed with exit code {code}{}",
                    self.last_words()
                )))
            }
            None => {
                let seconds = hook.timeout.unwrap_or_default().as_secs();
                Err(Failure::state(format!("The startContainer hook {name} took longer than {seconds} s")))
            }
        }
    }

    fn become_hook(&self, confine: &dyn Fn() -> Result<()>) -> Result<()> {
        // A group of its own, so that all of it can be ended.
        let prepared = setpgid(None, None).map_err(io::Error::from).and_then(|()| {
            process::place_descriptor(&self.state, 0, false)?;
            process::place_descriptor(&self.output, 1, false)?;
            process::place_descriptor(&self.output, 2, false)?;
            signal::block_only(&[])
        });
        prepared.doing(|| "Preparing the hook's process failed".into())?;
        confine()
    }

    fn last_words(&self) -> String {
        let mut text = vec![0; SHOWN];
        let length = rustix::io::pread(self.output.as_fd(), &mut text, 0).unwrap_or(0);
        text.truncate(length);
        match String::from_utf8_lossy(&text).trim() {
            "" => String::new(),
            words => format!(": {words}"),
        }
    }
}

/// Waits for a child, and reaps others that end meanwhile; `None`, and it is killed, when it takes too long.
fn await_end(pid: Pid, timeout: Option<Duration>) -> Option<WaitStatus> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        if let Some(status) = reap(pid, WaitOptions::NOHANG) {
            return Some(status);
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            break;
        }
        // Whatever woke it, the child says whether it has ended.
        let _ = signal::wait_for(libc::SIGCHLD, left);
    }
    let _ = signal::send_to(-pid.as_raw_nonzero().get(), libc::SIGKILL);
    let _ = signal::send_to(pid.as_raw_nonzero().get(), libc::SIGKILL);
    let _ = reap(pid, WaitOptions::empty());
    None
}

fn reap(wanted: Pid, options: WaitOptions) -> Option<WaitStatus> {
    loop {
        match wait(options) {
            Ok(Some((pid, status))) if pid == wanted => return Some(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}
