//! A container from `create` to `delete`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde_json::Value;

use crate::streams::Streams;
use crate::{Finished, Host};

/// A container; dropping it deletes it by force.
#[derive(Debug)]
pub struct Container<'a> {
    pub host: &'a Host,
    pub id: String,
    /// The process that stands for its init on the host, as the pid file says.
    pub pid: i32,
    process: Option<OwnedFd>,
    streams: Streams,
}

impl<'a> Container<'a> {
    /// `create`, with more arguments; whether it was created is for the caller to see.
    pub(crate) fn try_create(host: &'a Host, bundle: &Path, args: &[&str]) -> Result<(Finished, Self)> {
        let id = host.id();
        let pid_file = host.folder().join(format!("{id}.pid"));
        let command = host.command(&["create"]).arg("--bundle").arg(bundle).arg("--pid-file").arg(&pid_file);
        let command = args.iter().fold(command, |command, arg| command.arg(arg)).arg(&id);
        let (finished, mut streams) = command.finish_with_streams()?;
        streams.clear();
        let mut container = Self { host, id, pid: 0, process: None, streams };
        if finished.code == 0 {
            let text = std::fs::read_to_string(&pid_file).context("create wrote no pid file")?;
            container.pid = text.parse().with_context(|| format!("the pid file holds {text:?}"))?;
            container.process = Some(watched(container.pid)?);
        }
        Ok((finished, container))
    }

    /// A verb on this container.
    ///
    /// # Errors
    /// When it cannot be called; any exit code is an answer.
    pub fn call(&self, args: &[&str]) -> Result<Finished> {
        self.host.command(args).arg(&self.id).finish()
    }

    /// `exec ID ARGS`.
    ///
    /// # Errors
    /// When it cannot be called; any exit code is an answer.
    pub fn exec(&self, flags: &[&str], args: &[&str]) -> Result<Finished> {
        let command = flags.iter().fold(self.host.command(&["exec"]), |command, flag| command.arg(flag)).arg(&self.id);
        args.iter().fold(command, |command, arg| command.arg(arg)).finish()
    }

    /// `exec ID sh -c SCRIPT`, which must exit with 0; what it wrote.
    ///
    /// # Errors
    /// When it does not.
    pub fn exec_sh(&self, script: &str) -> Result<String> {
        self.exec(&[], &["sh", "-c", script])?.success()
    }

    /// `start`.
    ///
    /// # Errors
    /// When it fails.
    pub fn start(&self) -> Result<()> {
        self.call(&["start"])?.success().map(drop)
    }

    /// `state`, read.
    ///
    /// # Errors
    /// When there is none.
    pub fn state(&self) -> Result<Value> {
        let text = self.call(&["state"])?.success()?;
        serde_json::from_str(&text).with_context(|| format!("the state is not JSON: {text}"))
    }

    /// The status that `state` tells.
    ///
    /// # Errors
    /// When there is none.
    pub fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().context("a state without a status")?.to_owned())
    }

    /// `kill ID SIGNAL`.
    ///
    /// # Errors
    /// When it fails.
    pub fn kill(&self, signal: &str) -> Result<()> {
        self.host.runtime(&["kill", &self.id, signal])?.success().map(drop)
    }

    /// Waits until standard output holds a text.
    ///
    /// # Errors
    /// When the process ends before, or the time is up.
    pub fn says(&mut self, text: &str) -> Result<()> {
        let process = self.process.as_ref().context("the container was not created")?;
        let found = |streams: &Streams| streams.out().windows(text.len()).any(|part| part == text.as_bytes());
        let ended = self.streams.pump(&format!("waiting for {text:?}"), process.as_fd(), found)?;
        let [out, err] = [self.streams.out(), self.streams.err()].map(String::from_utf8_lossy);
        ensure!(!ended, "the process ended and did not say {text:?}\n--- stdout\n{out}\n--- stderr\n{err}");
        Ok(())
    }

    /// Waits for the end of the process and answers what it had written on standard output.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn wait(&mut self) -> Result<String> {
        let process = self.process.as_ref().context("the container was not created")?;
        self.streams.pump("waiting for the end", process.as_fd(), |_| false)?;
        Ok(String::from_utf8_lossy(self.streams.out()).into_owned())
    }

    /// The same, with its exit status (128 and the signal, when one ended it).
    ///
    /// # Errors
    /// Also when the process is not ours to wait for.
    pub fn wait_status(&mut self) -> Result<(i32, String)> {
        let out = self.wait()?;
        let process = self.process.as_ref().context("the container was not created")?;
        Ok((reap(process)?, out))
    }

    /// What has come on standard output so far.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(self.streams.out()).into_owned()
    }

    /// `start`, and its end; what it wrote.
    ///
    /// # Errors
    /// When it does not start or end.
    pub fn run(&mut self) -> Result<String> {
        self.start()?;
        self.wait()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It may never have been created, or be deleted: then there is nothing to do.
        if let Err(error) = self.host.runtime(&["delete", "--force", &self.id]) {
            eprintln!("cannot delete {}: {error:#}", self.id);
        }
        if let Some(process) = &self.process {
            // Ours when it was orphaned; if it is not, or has been waited for, there is nothing to do.
            let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// A descriptor that is readable when a process has ended.
///
/// # Errors
/// When there is no such process.
pub fn watched(pid: i32) -> Result<OwnedFd> {
    let pid = Pid::from_raw(pid).with_context(|| format!("{pid} is no pid"))?;
    pidfd_open(pid, PidfdFlags::empty()).with_context(|| format!("process {pid} does not live"))
}

/// Waits for a process's end.
///
/// # Errors
/// When it does not end in time.
pub fn wait_for_end(process: &OwnedFd) -> Result<()> {
    let (mut streams, ..) = Streams::new()?;
    streams.pump("waiting for the end of a process", process.as_fd(), |_| false).map(drop)
}

/// The exit status of an adopted process that has ended.
///
/// # Errors
/// When it is not ours.
pub fn reap(process: &OwnedFd) -> Result<i32> {
    let status = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)
        .context("the process cannot be waited for")?
        .context("the process has not ended")?;
    Ok(status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(-1))
}
