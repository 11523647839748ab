//! Twenty containers started at once all run, each with its own answer.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let answers: Vec<Result<String>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..20).map(|i| scope.spawn(move || host.sh(&["-m", "64m"], &format!("echo {i}")))).collect();
        runs.into_iter().map(|r| r.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))).collect()
    });
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = answer?;
        ensure!(answer.trim() == i.to_string(), "{answer}");
    }
    Ok(Outcome::Passed)
}
