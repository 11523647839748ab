//! One command, most often `dewar`: its input, output and exit code.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::Host;

/// A command that is to be run, or runs.
#[derive(Debug)]
pub struct Session {
    command: Command,
    shown: String,
    input: Vec<u8>,
}

/// What a command did.
#[derive(Debug, Clone)]
pub struct Finished {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
    shown: String,
}

impl Session {
    pub(crate) fn new(context: &Host, args: &[&str]) -> Self {
        let mut command = Command::new(context.stage.join("bin/dewar"));
        command.arg("--root").arg(&context.root).args(args).env("DEWAR_ENGINE", &context.engine);
        Self::of(command, format!("dewar {}", args.join(" ")))
    }

    /// Any command, and how reports show it.
    pub(crate) const fn of(command: Command, shown: String) -> Self {
        Self { command, shown, input: Vec::new() }
    }

    pub fn env(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.command.env(key, value.into());
        self
    }

    /// Bytes for standard input, which then ends.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn finish(self) -> Result<Finished> {
        let input = self.input.clone();
        let shown = self.shown.clone();
        let mut child = self.spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // A command that does not read its input closes it early: no failure.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let out = read_all(child.stdout.take().context("no stdout")?);
        let err = read_all(child.stderr.take().context("no stderr")?);
        let status = child.wait()?;
        let (out, err) = (join(out)?, join(err)?);
        let _ = writer.join();
        Ok(Finished { code: exit_code(status), out, err: String::from_utf8_lossy(&err).into_owned(), shown })
    }

    /// Starts it with pipes for all three streams.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(mut self) -> Result<Child> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().with_context(|| format!("cannot start {}", self.shown))
    }

    /// The command itself, for other wiring.
    pub fn command(self) -> Command {
        self.command
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(-1)
}

fn read_all(mut source: impl Read + Send + 'static) -> JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).map(|_| bytes)
    })
}

fn join(reader: JoinHandle<std::io::Result<Vec<u8>>>) -> Result<Vec<u8>> {
    reader.join().map_err(|_| anyhow::anyhow!("a reader thread panicked"))?.context("cannot read an output")
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// The output of a command that has to exit with 0.
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
        ensure!(
            self.code == code,
            "`{}` exited with {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.code,
            self.text(),
            self.err
        );
        Ok(self)
    }

    /// Checks that standard error contains a text.
    ///
    /// # Errors
    /// When it does not.
    pub fn complains(&self, text: &str) -> Result<&Self> {
        ensure!(self.err.contains(text), "`{}` did not say {text:?} but:\n{}", self.shown, self.err);
        Ok(self)
    }
}
