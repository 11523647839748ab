//! `logs -f` shows what was said and what is being said, and ends with the container.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.host.name();
    let script = "mkfifo /go; echo before; cat /go; echo after >&2";
    engine.ok(&engine.run_args(&["-d", "--name", &name], &["sh", "-c", script]))?;
    let mut logs = engine.session(&["logs", "-f", &name]).spawn()?;
    let mut out = BufReader::new(logs.stdout.take().context("no stdout")?);
    let mut line = String::new();
    out.read_line(&mut line)?;
    ensure!(line == "before\n", "{line:?}");
    engine.ok(&["exec", &name, "sh", "-c", "echo between >/go"])?;
    line.clear();
    out.read_line(&mut line)?;
    ensure!(line == "between\n", "{line:?}");
    let ended = logs.wait_with_output()?;
    ensure!(ended.status.success() && ended.stderr.ends_with(b"after\n"), "{ended:?}");
    ensure!(engine.ok(&["wait", &name])? == "0");
    engine.ok(&["rm", &name])?;
    Ok(())
}
