//! `kill` reaches the container's command: a handled signal is handled, SIGKILL ends it.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.host.name();
    let script = "trap 'echo hup' HUP; echo ready; while :; do sleep 1; done";
    let mut session = engine.session(&engine.run_args(&["--name", &name], &["sh", "-c", script])).spawn()?;
    let mut out = BufReader::new(session.stdout.take().context("no stdout")?);
    let mut next = || -> Result<String> {
        let mut line = String::new();
        out.read_line(&mut line)?;
        Ok(line)
    };
    ensure!(next()? == "ready\n");
    engine.ok(&["kill", "-s", "HUP", &name])?;
    ensure!(next()? == "hup\n");
    engine.ok(&["kill", &name])?;
    let code = session.wait()?.code();
    ensure!(code == Some(137), "{code:?}");
    engine.ok(&["rm", &name])?;
    Ok(())
}
