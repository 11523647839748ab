//! Numbered steps with their times; the output of what they call goes to a log whose end is shown on failure.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::places::Places;

/// Lines of a failed command's log that are shown.
const TAIL_LINES: usize = 30;
/// Least time between two progress reports on a terminal, and where every report is a line of its own.
const TERMINAL_PACE: Duration = Duration::from_millis(500);
const PLAIN_PACE: Duration = Duration::from_secs(30);

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The inputs have not changed since the product was made.
    UpToDate,
}

/// A run of `total` steps, announced as `[n/total]` on standard error.
pub struct Steps {
    started: usize,
    total: usize,
    logs: PathBuf,
}

impl Steps {
    pub fn new(places: &Places, total: usize) -> Result<Self> {
        let logs = places.logs();
        fs::create_dir_all(&logs).with_context(|| format!("Failed to create {}", logs.display()))?;
        Ok(Self { started: 0, total, logs })
    }

    /// Runs `work` as the next step. `what` names it to the user and names its log.
    pub fn run(&mut self, what: &str, work: impl FnOnce(&mut Step) -> Result<Outcome>) -> Result<Outcome> {
        self.started += 1;
        let mut step = Step {
            label: format!("[{}/{}] {what} …", self.started, self.total),
            log: self.logs.join(format!("{}.log", what.replace(' ', "-"))),
            started: Instant::now(),
            reported: Instant::now(),
            terminal: io::stderr().is_terminal(),
        };
        File::create(&step.log).with_context(|| format!("Failed to create {}", step.log.display()))?;
        if step.terminal {
            eprint!("{} ", step.label);
        }
        let outcome = work(&mut step);
        step.close(outcome.as_ref().ok().copied());
        outcome
    }
}

/// The step under way.
pub struct Step {
    label: String,
    log: PathBuf,
    started: Instant,
    reported: Instant,
    terminal: bool,
}

impl Step {
    /// Runs a command to its end with its output in the step's log.
    pub fn command(&mut self, command: &mut Command) -> Result<()> {
        self.command_with_progress(command, |_| None)
    }

    /// The same, asking `progress` about each line of output; what it answers is shown from time to time.
    pub fn command_with_progress(
        &mut self,
        command: &mut Command,
        mut progress: impl FnMut(&str) -> Option<String>,
    ) -> Result<()> {
        let mut log = File::options()
            .append(true)
            .open(&self.log)
            .with_context(|| format!("Failed to open {}", self.log.display()))?;
        writeln!(log, "$ {command:?}").context("Failed to write the step's log")?;
        let (reader, writer) = io::pipe().context("Failed to create a pipe")?;
        let errors = writer.try_clone().context("Failed to create a pipe")?;
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("Failed to start {program}"))?;
        // The command holds the pipe's write ends until it is told to let go: the read below would never end.
        command.stdout(Stdio::null()).stderr(Stdio::null());

        for line in BufReader::new(reader).split(b'\n') {
            let line = line.with_context(|| format!("Failed to read the output of {program}"))?;
            log.write_all(&line).and_then(|()| log.write_all(b"\n")).context("Failed to write the step's log")?;
            if let Some(report) = progress(&String::from_utf8_lossy(&line)) {
                self.report(&report);
            }
        }
        let status = child.wait().with_context(|| format!("Failed to wait for {program}"))?;
        if !status.success() {
            self.fail(&program, status)?;
        }
        Ok(())
    }

    fn fail(&self, program: &str, status: std::process::ExitStatus) -> Result<()> {
        let end = tail(&self.log)?;
        bail!("{program} failed ({status}); the end of {}:\n{end}", self.log.display())
    }

    /// Shows how far the step is, unless the last report is too recent.
    fn report(&mut self, report: &str) {
        let pace = if self.terminal { TERMINAL_PACE } else { PLAIN_PACE };
        if self.reported.elapsed() < pace {
            return;
        }
        self.reported = Instant::now();
        let elapsed = self.started.elapsed().as_secs();
        if self.terminal {
            eprint!("\r\x1b[K{} {report}, {elapsed} s", self.label);
        } else {
            eprintln!("{} {report}, {elapsed} s", self.label);
        }
    }

    fn close(&self, outcome: Option<Outcome>) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        let end = match outcome {
            Some(Outcome::Done) => format!("{:.1} s", self.started.elapsed().as_secs_f64()),
            Some(Outcome::UpToDate) => "up to date".to_owned(),
            None => format!("failed after {:.1} s", self.started.elapsed().as_secs_f64()),
        };
        eprintln!("{start}{} {end}", self.label);
    }
}

fn tail(log: &Path) -> Result<String> {
    let bytes = fs::read(log).with_context(|| format!("Failed to read {}", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

/// Counts what cargo says it compiles, for [`Step::command_with_progress`].
pub fn cargo_progress() -> impl FnMut(&str) -> Option<String> {
    let mut compiled = 0_usize;
    move |line| {
        let name = line.trim_start().strip_prefix("Compiling ")?.split(' ').next()?;
        compiled += 1;
        Some(format!("{compiled} crates ({name})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(dir: &Path) -> Steps {
        Steps { started: 0, total: 1, logs: dir.to_owned() }
    }

    #[test]
    fn a_failing_command_shows_the_end_of_its_output() {
        let dir = tempfile::tempdir().unwrap();
        let error = steps(dir.path())
            .run("some work", |step| {
                step.command(Command::new("sh").args(["-c", "for i in $(seq 100); do echo line $i; done; exit 3"]))?;
                Ok(Outcome::Done)
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 100") && error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("line 70\n"), "{error}");
        assert!(fs::read_to_string(dir.path().join("some-work.log")).unwrap().contains("line 70\n"));
    }

    #[test]
    fn both_streams_reach_the_log_and_the_progress() {
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        steps(dir.path())
            .run("streams", |step| {
                step.command_with_progress(Command::new("sh").args(["-c", "echo out; echo err >&2"]), |line| {
                    seen.push(line.to_owned());
                    None
                })?;
                Ok(Outcome::Done)
            })
            .unwrap();
        assert_eq!(seen, ["out", "err"]);
    }

    #[test]
    fn cargo_lines_are_counted() {
        let mut progress = cargo_progress();
        assert_eq!(progress("   Compiling libc v0.2.1"), Some("1 crates (libc)".to_owned()));
        assert_eq!(progress("    Finished `release`"), None);
        assert_eq!(progress("   Compiling xtask v0.1.0 (/x)"), Some("2 crates (xtask)".to_owned()));
    }
}
