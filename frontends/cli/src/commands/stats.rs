//! `dewar stats`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use dewar_protocol::Stats as Figures;
use dewar_runtime::Runtime;
use dewar_runtime::container::Container;
use dewar_runtime::control::Client;

use crate::cli::{Globals, Verb};
use crate::output;
use crate::output::table::{Column, List};
use crate::output::units::{binary_size, size};

/// Between two readings: what a share of a CPU is measured over.
const INTERVAL: Duration = Duration::from_secs(1);
const CLEAR: &[u8] = b"\x1b[2J\x1b[H";

const COLUMNS: [Column; 9] = [
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
    ("Container", "CONTAINER"),
];
const SHOWN: [&str; 8] = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];

#[derive(Debug, Args)]
pub struct Stats {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print once, instead of anew every second
    #[arg(long)]
    no_stream: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    /// table, json, or a template such as {{.Name}}: {{.CPUPerc}}
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Containers, by name or id; without any, all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Verb for Stats {
    const NAME: &'static str = "stats";
    const ABOUT: &'static str = "Show what containers use";
    const USAGE: &'static str = "[OPTIONS] [CONTAINER...]";
    const EXAMPLES: &'static str = "  dewar stats --no-stream\n  dewar stats web database";

    fn run(self, globals: &Globals) -> anyhow::Result<u8> {
        let runtime = globals.runtime()?;
        let mut before = self.read(&runtime)?;
        loop {
            std::thread::sleep(INTERVAL);
            let now = self.read(&runtime)?;
            let rows = now.iter().map(|reading| {
                let id = &reading.container.config.id;
                self.row(reading, before.iter().find(|b| b.container.config.id == *id))
            });
            let list = List { columns: &COLUMNS, shown: &SHOWN, rows: rows.collect() };
            if !self.no_stream && self.format.is_none() && std::io::stdout().is_terminal() {
                output::bytes(CLEAR)?;
            }
            list.print(self.format.as_deref())?;
            if self.no_stream {
                return Ok(0);
            }
            before = now;
        }
    }
}

/// One look at a container; no figures when it does not run.
struct Reading {
    container: Container,
    at: Instant,
    figures: Option<Figures>,
}

impl Stats {
    fn read(&self, runtime: &Runtime) -> anyhow::Result<Vec<Reading>> {
        let store = runtime.containers();
        let chosen = if self.containers.is_empty() {
            store.list()?
        } else {
            self.containers.iter().map(|name| store.find(name)).collect::<Result<_, _>>()?
        };
        let everything = self.all || !self.containers.is_empty();
        let readings = chosen.into_iter().map(|container| {
            let figures = Client::connect(&container).and_then(|mut client| client.stats()).ok();
            Reading { container, at: Instant::now(), figures }
        });
        Ok(readings.filter(|r| everything || r.figures.is_some()).collect())
    }

    fn row(&self, reading: &Reading, before: Option<&Reading>) -> Vec<String> {
        let config = &reading.container.config;
        let id = if self.no_trunc { config.id.as_str() } else { config.id.get(..12).unwrap_or(&config.id) };
        let mut row = vec![id.to_owned(), config.name.clone()];
        let machine_memory = config.memory_mib.saturating_mul(1 << 20);
        row.extend(match &reading.figures {
            Some(figures) => {
                let earlier = before.and_then(|b| Some((b.figures.as_ref()?, reading.at.duration_since(b.at))));
                columns(figures, earlier, machine_memory)
            }
            None => ["--"; 6].map(str::to_owned),
        });
        row.push(config.name.clone());
        row
    }
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn columns(figures: &Figures, earlier: Option<(&Figures, Duration)>, machine_memory: u64) -> [String; 6] {
    let cpu = earlier.map_or(0.0, |(earlier, elapsed)| {
        let used = figures.cpu_usage_us.saturating_sub(earlier.cpu_usage_us) as f64;
        used / elapsed.as_micros().max(1) as f64 * 100.0
    });
    // As docker: page cache that can go at any time is not counted.
    let memory = figures.memory_current.saturating_sub(figures.memory_inactive_file);
    let limit = figures.memory_limit.unwrap_or(machine_memory);
    [
        format!("{cpu:.2}%"),
        format!("{} / {}", binary_size(memory), binary_size(limit)),
        format!("{:.2}%", memory as f64 / limit.max(1) as f64 * 100.0),
        "0B / 0B".to_owned(),
        format!("{} / {}", size(figures.io_read_bytes), size(figures.io_write_bytes)),
        figures.pids_current.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_docker_s() {
        let earlier = Figures { cpu_usage_us: 1_000_000, ..Figures::default() };
        let now = Figures {
            cpu_usage_us: 1_500_000,
            memory_current: 48 << 20,
            memory_inactive_file: 16 << 20,
            memory_limit: Some(64 << 20),
            io_read_bytes: 1500,
            pids_current: 3,
            ..Figures::default()
        };
        let row = columns(&now, Some((&earlier, Duration::from_secs(1))), 1 << 30);
        assert_eq!(row, ["50.00%", "32MiB / 64MiB", "50.00%", "0B / 0B", "1.5kB / 0B", "3"]);
        let unlimited = columns(&Figures { memory_limit: None, ..now }, None, 1 << 30);
        assert_eq!((unlimited[0].as_str(), unlimited[1].as_str()), ("0.00%", "32MiB / 1GiB"));
    }
}
