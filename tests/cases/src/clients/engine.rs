//! podman or docker: their command lines are alike.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use super::{Machines, missing};
use crate::{Finished, Host, Outcome, Session, Terminal};

/// An engine with a state of its own.
#[derive(Debug)]
pub struct Engine<'a> {
    pub host: &'a Host,
    pub kind: &'static Kind,
    /// Where its state is.
    pub dir: PathBuf,
}

/// What tells one engine from the other.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// Programs that it consists of.
    pub programs: &'static [&'static str],
    /// The engine's command with the options that lead to its own state.
    pub command: fn(&Engine<'_>) -> Command,
    /// The image that containers are made of.
    pub image: &'static str,
    /// Starts what has to be started, and brings in the image; once for all cases.
    pub prepare: fn(&Engine<'_>) -> Result<()>,
    /// Exit code of `rm` when it refuses.
    pub rm_refused: i32,
    /// Exit code of `exec` of a program that is not there.
    pub exec_unknown: i32,
    /// Exit code of `exec` in a paused container.
    pub exec_refused: i32,
    /// The flag of `build` that names what else its user would choose.
    pub build_flags: &'static [&'static str],
}

/// Runs a case with an engine, after which nothing may be left.
///
/// # Errors
/// Those of the case, and what it left.
pub fn with(host: &Host, kind: &'static Kind, case: fn(&Engine<'_>) -> Result<()>) -> Result<Outcome> {
    if let Some(skipped) = missing(kind.programs) {
        return Ok(skipped);
    }
    let engine = Engine { host, kind, dir: host.root.join(kind.name) };
    (kind.prepare)(&engine)?;
    let machines = Machines::now(host);
    let result = case(&engine);
    let clean = engine.clean_up().and_then(|()| machines.nothing_new(host));
    result?;
    clean?;
    Ok(Outcome::Passed)
}

impl Engine<'_> {
    /// `ENGINE ARGS`, to be run or spawned.
    pub fn session(&self, args: &[&str]) -> Session {
        let mut command = (self.kind.command)(self);
        command.args(args).env("DEWAR_ENGINE", &self.host.engine);
        Session::of(command, format!("{} {}", self.kind.name, args.join(" ")))
    }

    /// Runs it to its end; any exit code is an answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn any(&self, args: &[&str]) -> Result<Finished> {
        self.session(args).finish()
    }

    /// Runs it to its end; must exit with 0. The answer is what it printed, without the last line's end.
    ///
    /// # Errors
    /// When it exits with anything else.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        Ok(self.any(args)?.success()?.trim_end().to_owned())
    }

    /// `run --network none FLAGS IMAGE COMMAND`; any exit code is an answer.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Result<Finished> {
        self.any(&self.run_args(flags, command))
    }

    /// The same with `--rm` and `sh -c SCRIPT`; must exit with 0. The answer is what it printed.
    ///
    /// # Errors
    /// When it exits with anything else.
    pub fn sh(&self, flags: &[&str], script: &str) -> Result<String> {
        let flags = [&["--rm"], flags].concat();
        Ok(self.run(&flags, &["sh", "-c", script])?.success()?.trim_end().to_owned())
    }

    /// Starts a container that lives until it is removed; the answer is its name.
    ///
    /// # Errors
    /// When it does not start.
    pub fn sleeper(&self, flags: &[&str]) -> Result<String> {
        let name = self.host.name();
        let flags = [&["-d", "--name", &name], flags].concat();
        self.run(&flags, &["sleep", "1000"])?.success()?;
        Ok(name)
    }

    /// `run --network none FLAGS IMAGE COMMAND`.
    pub fn run_args<'a>(&self, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["run", "--network", "none"], flags, &[self.kind.image], command].concat()
    }

    /// A command on a terminal of 30 rows and 100 columns.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn terminal(&self, args: &[&str]) -> Result<Terminal> {
        Terminal::start(self.session(args).command(), 30, 100)
    }

    /// Nothing of a case may stay; what stays is removed all the same.
    ///
    /// # Errors
    /// When something did.
    pub fn clean_up(&self) -> Result<()> {
        let left = self.ok(&["ps", "-aq"])?;
        if !left.is_empty() {
            let args: Vec<&str> = ["rm", "-f"].into_iter().chain(left.split_whitespace()).collect();
            self.any(&args)?;
        }
        ensure!(left.is_empty(), "the case left containers: {left}");
        Ok(())
    }
}
