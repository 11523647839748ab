//! One call of the runtime, and what came of it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{self, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::streams::Streams;

/// A call that has not been made.
#[derive(Debug)]
pub struct Command {
    command: process::Command,
    shown: String,
    input: Option<Vec<u8>>,
}

/// A call that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
    shown: String,
}

impl Command {
    pub(crate) fn new(runtime: &Path, root: &Path, args: &[&str]) -> Self {
        let mut command = process::Command::new(runtime);
        command.arg("--root").arg(root).args(args);
        Self { command, shown: format!("{} {}", runtime.display(), args.join(" ")), input: None }
    }

    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.shown.push(' ');
        self.shown.push_str(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    /// Where it is called.
    pub fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// A variable of its environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Bytes for standard input (less than a pipe holds), which then ends.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = Some(bytes.to_vec());
        self
    }

    /// Runs to the end of the called process; whatever it left running is not waited for.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time.
    pub fn finish(self) -> Result<Finished> {
        self.finish_with_streams().map(|(finished, _)| finished)
    }

    /// The same, with the pipes that what it left running may go on writing to.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn finish_with_streams(mut self) -> Result<(Finished, Streams)> {
        let (mut streams, out, err) = Streams::new()?;
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(out).stderr(err);
        let mut child = self.command.spawn().with_context(|| format!("cannot start {}", self.shown))?;
        // Our copies of the pipes' other ends go.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input) {
            // A command that does not read its input closes it early: no failure.
            let _ = stdin.write_all(&input);
        }
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("cannot watch a process")?;
        let ended = streams.pump(&self.shown, process.as_fd(), |_| false);
        if ended.is_err() {
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
        let status = child.wait()?;
        ended?;
        let err = String::from_utf8_lossy(streams.err()).into_owned();
        let finished = Finished { code: code_of(status), out: streams.out().to_vec(), err, shown: self.shown };
        Ok((finished, streams))
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The output of a call that has to exit with 0.
    ///
    /// # Errors
    /// When it did not.
    pub fn success(&self) -> Result<String> {
        self.exits(0)?;
        Ok(self.text())
    }

    /// Checks the exit code.
    ///
    /// # Errors
    /// With all there is to see, when it is another one.
    pub fn exits(&self, code: i32) -> Result<&Self> {
        ensure!(self.code == code, "{} instead of {code}", self.described());
        Ok(self)
    }

    /// Checks that the call failed and gave a reason.
    ///
    /// # Errors
    /// When it did not.
    pub fn fails(&self) -> Result<&Self> {
        ensure!(self.code != 0, "{}, which is wrong", self.described());
        ensure!(!self.err.trim().is_empty(), "{} and no reason", self.described());
        Ok(self)
    }

    fn described(&self) -> String {
        let (shown, code, out, err) = (&self.shown, self.code, self.text(), &self.err);
        format!("`{shown}`\n--- stdout\n{out}\n--- stderr\n{err}\n--- exited with {code}")
    }
}
