//! Times commands by CLOCK_MONOTONIC, from just before their process is made.

use std::io::Read;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

const NS_PER_MS: f64 = 1e6;

pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or_default() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

pub fn ms(from: u64, to: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a difference of times in one run")]
    let ns = to.saturating_sub(from) as f64;
    ns / NS_PER_MS
}

/// Splits a line of words.
pub fn command(line: &str) -> Command {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Milliseconds that a command takes from start to exit; it must succeed.
pub fn time(command: &mut Command) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let began = now_ns();
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    let ended = now_ns();
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(ms(began, ended))
}

/// Milliseconds until a command's standard output has said `mark`; then it is waited for, whatever it answers.
pub fn time_to_mark(command: &mut Command, mark: &str) -> Result<f64> {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let began = now_ns();
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut output = child.stdout.take().context("a command without output")?;
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let mut marked = None;
    loop {
        let n = output.read(&mut buffer).context("cannot read a command's output")?;
        if n == 0 {
            break;
        }
        let now = now_ns();
        seen.extend_from_slice(buffer.get(..n).unwrap_or_default());
        if marked.is_none() && seen.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            marked = Some(now);
        }
    }
    child.wait().with_context(|| format!("cannot wait for {command:?}"))?;
    let marked =
        marked.with_context(|| format!("{command:?} never said {mark:?}: {}", String::from_utf8_lossy(&seen)))?;
    Ok(ms(began, marked))
}

/// `runs` values of a measurement.
pub fn repeat(runs: usize, mut once: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    (0..runs).map(|_| once()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_across_pieces_and_a_missing_one_is_an_error() {
        let script = |text: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", text]);
            shell
        };
        assert!(time_to_mark(&mut script("printf rea; printf 'dy\n'; exit 3"), "ready").expect("found") > 0.0);
        assert!(time_to_mark(&mut script("echo no"), "ready").is_err());
        assert!(time(&mut script("exit 1")).is_err());
    }
}
