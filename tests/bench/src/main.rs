//! The measuring program: `dewar-bench start|oci|bytes`, run in the lab by `cargo xtask bench`, and `dewar-bench host STAGE`.
//!
//! Prints one line `<figure> <unit> <value> <value> …` for each figure, every value a run of its own, and what it is at on
//! standard error. As the first process of a guest it is the init whose start the machine monitors are timed to.

mod bytes;
mod files;
mod guest;
mod host;
mod memory;
mod oci;
mod peers;
mod start;
mod stopwatch;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

/// Runs of each figure, after one that warms the caches.
const RUNS: usize = 6;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::init();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match measure(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dewar-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(what: &[&str]) -> Result<()> {
    match what {
        ["start"] => {
            start::measure()?;
            peers::measure()?;
            memory::measure()
        }
        ["oci"] => oci::measure(),
        // One kind of work on files, for `oci`.
        ["files", work, dir] => files::work(work, Path::new(dir)).map(|ms| println!("{ms:.3}")),
        ["bytes"] => bytes::measure(),
        ["host", stage] => host::measure(Path::new(stage)),
        _ => bail!("give `start`, `oci`, `bytes` or `host STAGE`; `cargo xtask bench` does"),
    }
}

/// One figure with its runs.
fn report(figure: &str, unit: &str, values: &[f64]) {
    let values: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
    println!("{figure}\t{unit}\t{}", values.join(" "));
}
