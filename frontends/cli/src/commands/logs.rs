//! `dewar logs`.

use std::collections::VecDeque;
use std::io::{self, Write};

use anyhow::Context;
use clap::Args;
use dewar_runtime::container::Container;
use dewar_runtime::container::log::{LogReader, LogRecord, Output};
use dewar_runtime::control::Client;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::units;

#[derive(Debug, Args)]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines, or all
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    tail: Tail,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Only what came after a time, such as 2026-01-02T03:04:05Z or 10m
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<u64>,
    /// Only what came before a time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// Container, by name or id
    container: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Lines(usize),
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "-1" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| "give a number of lines, or all".into()),
    }
}

fn time(text: &str) -> Result<u64, String> {
    units::point_in_time(text, units::now())
}

impl Verb for Logs {
    const NAME: &'static str = "logs";
    const ABOUT: &'static str = "Print what a container has written";
    const USAGE: &'static str = "[OPTIONS] CONTAINER";
    const EXAMPLES: &'static str = "  dewar logs --tail 20 web\n  dewar logs -f --timestamps web";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let container = globals.runtime()?.containers().find(&self.container)?;
        // Before the first read, so that nothing is missed between it and the first wait.
        let changes = if self.follow { Some(Changes::watch(&container)?) } else { None };
        let mut reader = LogReader::open(&container.log_path());
        let mut lines = Lines::default();
        let mut last = VecDeque::new();
        self.read(&mut reader, |record| {
            lines.add(record, |line| match self.tail {
                Tail::All => self.print(&line),
                Tail::Lines(most) => {
                    last.push_back(line);
                    if last.len() > most {
                        last.pop_front();
                    }
                    Ok(())
                }
            })
        })?;
        if let Tail::Lines(most) = self.tail {
            lines.rest(|line| {
                last.push_back(line);
                Ok(())
            })?;
            for line in last.iter().skip(last.len().saturating_sub(most)) {
                self.print(line)?;
            }
        }
        if let Some(changes) = changes {
            loop {
                let ended = !container.read_state().is_ok_and(|state| state.status.is_live());
                self.read(&mut reader, |record| lines.add(record, |line| self.print(&line)))?;
                if ended || !changes.wait()? {
                    break;
                }
            }
            self.read(&mut reader, |record| lines.add(record, |line| self.print(&line)))?;
        }
        lines.rest(|line| self.print(&line))?;
        Ok(0)
    }
}

impl Logs {
    fn read(&self, reader: &mut LogReader, mut take: impl FnMut(LogRecord) -> io::Result<()>) -> anyhow::Result<()> {
        while let Some(record) = reader.next_record().context("cannot read the log")? {
            let early = self.since.is_some_and(|since| record.time_ns < since);
            let late = self.until.is_some_and(|until| record.time_ns > until);
            if !early && !late {
                take(record)?;
            }
        }
        Ok(())
    }

    fn print(&self, line: &Line) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(line.bytes.len() + 32);
        if self.timestamps {
            bytes.extend_from_slice(format!("{} ", units::rfc3339(line.time_ns)).as_bytes());
        }
        bytes.extend_from_slice(&line.bytes);
        match line.output {
            Output::Stdout => output::bytes(&bytes),
            Output::Stderr => io::stderr().write_all(&bytes),
        }
    }
}

/// A line with its end, or the last piece of an output without one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    output: Output,
    /// When its first byte came.
    time_ns: u64,
    bytes: Vec<u8>,
}

/// Puts lines together from pieces; the two outputs do not mix within a line.
#[derive(Debug, Default)]
struct Lines {
    stdout: Option<Line>,
    stderr: Option<Line>,
}

impl Lines {
    fn add(&mut self, record: LogRecord, mut take: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
        let LogRecord { output, time_ns, bytes } = record;
        let partial = match output {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let mut line = partial.take().unwrap_or(Line { output, time_ns, bytes: Vec::new() });
            line.bytes.extend_from_slice(piece);
            if piece.last() == Some(&b'\n') {
                take(line)?;
            } else {
                *partial = Some(line);
            }
        }
        Ok(())
    }

    fn rest(&mut self, mut take: impl FnMut(Line) -> io::Result<()>) -> io::Result<()> {
        for line in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            take(line)?;
        }
        Ok(())
    }
}

/// Tells when a container's files have changed, or its supervisor is gone.
struct Changes {
    inotify: std::os::fd::OwnedFd,
    /// Readable (at its end) when the supervisor has ended.
    supervisor: std::os::fd::OwnedFd,
}

impl Changes {
    fn watch(container: &Container) -> anyhow::Result<Self> {
        let watch = || -> rustix::io::Result<_> {
            let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
            inotify::add_watch(&fd, &container.dir, events | inotify::WatchFlags::DELETE_SELF)?;
            Ok((fd, pipe_with(PipeFlags::CLOEXEC)?))
        };
        let (inotify, (supervisor, alive)) = watch().context("cannot watch the container's log")?;
        let container = container.clone();
        std::thread::spawn(move || {
            // However this ends, the pipe is closed and the follower looks again.
            let _ = Client::connect(&container).and_then(|mut client| client.wait(None));
            drop(alive);
        });
        Ok(Self { inotify, supervisor })
    }

    /// Returns when something has changed; false when the supervisor is gone, so that nothing more will.
    fn wait(&self) -> anyhow::Result<bool> {
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.supervisor, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait for the container's log"),
        }
        let mut events = [0; 4096];
        while rustix::io::read(&self.inotify, &mut events).is_ok_and(|n| n > 0) {}
        Ok(fds[1].revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_within_their_own_output() {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for (output, time_ns, text) in [
            (Output::Stdout, 1, "a"),
            (Output::Stderr, 2, "x\ny"),
            (Output::Stdout, 3, "b\n\nc"),
            (Output::Stderr, 4, ""),
        ] {
            let record = LogRecord { output, time_ns, bytes: text.into() };
            lines
                .add(record, |line| {
                    seen.push(line);
                    Ok(())
                })
                .expect("takes");
        }
        lines
            .rest(|line| {
                seen.push(line);
                Ok(())
            })
            .expect("takes");
        let seen: Vec<(Output, u64, &str)> =
            seen.iter().map(|l| (l.output, l.time_ns, std::str::from_utf8(&l.bytes).expect("text"))).collect();
        let (out, err) = (Output::Stdout, Output::Stderr);
        assert_eq!(seen, [(err, 2, "x\n"), (out, 1, "ab\n"), (out, 3, "\n"), (out, 3, "c"), (err, 2, "y")]);
    }

    #[test]
    fn numbers_of_lines() {
        assert_eq!(tail("all"), Ok(Tail::All));
        assert_eq!(tail("0"), Ok(Tail::Lines(0)));
        assert!(tail("-5").is_err() && tail("x").is_err());
    }
}
