//! `dewar top`.

use clap::Args;
use dewar_protocol::ProcessInfo;
use dewar_runtime::control::Client;

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::table::align;
use crate::output::units;

const TICK: u64 = 10_000_000;
const HEAD: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

#[derive(Debug, Args)]
pub struct Top {
    /// Container, by name or id
    container: String,
}

impl Verb for Top {
    const NAME: &'static str = "top";
    const ABOUT: &'static str = "List the processes of a container";
    const USAGE: &'static str = "CONTAINER";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let container = globals.runtime()?.containers().find(&self.container)?;
        let state = container.state()?;
        anyhow::ensure!(state.status.is_live(), "Container {} is not running", container.config.id);
        let processes = Client::connect(&container)?.top()?;
        let text = render(&processes, state.started_ns.unwrap_or_default(), units::now());
        output::bytes(text.as_bytes())?;
        Ok(0)
    }
}

/// The guest counts from its boot; its first process began when the container was started.
fn render(processes: &[ProcessInfo], container_started: u64, now: u64) -> String {
    let first = processes.iter().map(|p| p.started_ticks).min().unwrap_or(0);
    let mut lines = vec![HEAD.map(str::to_owned).to_vec()];
    for process in processes {
        let after = process.started_ticks.saturating_sub(first).saturating_mul(TICK);
        let started = container_started.saturating_add(after);
        let age_ticks = (now.saturating_sub(started) / TICK).max(1);
        let percent = process.cpu_ticks.saturating_mul(100) / age_ticks;
        let seconds = process.cpu_ticks / 100;
        lines.push(vec![
            printable(&process.user),
            process.pid.to_string(),
            process.ppid.to_string(),
            percent.min(999).to_string(),
            units::hour_and_minute(started),
            printable(&process.tty),
            format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
            printable(&process.command),
        ]);
    }
    align(&lines)
}

/// The guest wrote it: it must not steer the user's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_a_line_that_cannot_steer_the_terminal() {
        let process = ProcessInfo {
            pid: 7,
            ppid: 1,
            uid: 0,
            user: "root".into(),
            state: 'S',
            tty: "?".into(),
            started_ticks: 150,
            cpu_ticks: 366_100,
            rss_kib: 4,
            command: "sh\x1b[2J\nx".into(),
        };
        let first = ProcessInfo { pid: 1, started_ticks: 50, cpu_ticks: u64::MAX, ..process.clone() };
        let text = render(&[first, process], 3600 * 1_000_000_000, 3602 * 1_000_000_000);
        let last: Vec<&str> = text.lines().last().expect("a line").split_whitespace().collect();
        assert_eq!(last, ["root", "7", "1", "999", "01:00", "?", "01:01:01", "sh?[2J?x"]);
        assert_eq!(text.lines().count(), 3);
    }
}
