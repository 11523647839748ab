//! The measuring program: `dewar-bench start|bytes`, run in the lab by `cargo xtask bench`.
//!
//! Prints one line `<figure> <unit> <value> <value> …` for each figure, every value a run of its own, and what it is at on
//! standard error. As the first process of a guest it is the init whose start the machine monitors are timed to.

mod bytes;
mod guest;
mod memory;
mod peers;
mod start;
mod stopwatch;

use std::process::ExitCode;

use anyhow::{Result, bail};

/// Runs of each figure, after one that warms the caches.
const RUNS: usize = 6;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::init();
    }
    let what = std::env::args().nth(1);
    match measure(what.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dewar-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(what: Option<&str>) -> Result<()> {
    match what {
        Some("start") => {
            start::measure()?;
            peers::measure()?;
            memory::measure()
        }
        Some("bytes") => bytes::measure(),
        _ => bail!("give `start` or `bytes`; `cargo xtask bench` does"),
    }
}

/// One figure with its runs.
fn report(figure: &str, unit: &str, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    println!("{figure}\t{unit}\t{}", values.join(" "));
}
