//! `stop` sends the stop signal; who does not listen is killed after the timeout.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let gentle = host.name();
    let script = "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    host.dewar(&["run", "-d", "--name", &gentle, "busybox", "sh", "-c", script]).finish()?.success()?;
    // Only once the trap is set.
    let mut follow = host.dewar(&["logs", "-f", &gentle]).spawn()?;
    let mut line = String::new();
    BufReader::new(follow.stdout.take().context("no stdout")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "{line:?}");
    host.dewar(&["stop", "-t", "60", &gentle]).finish()?.success()?;
    follow.wait()?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &gentle]).finish()?.success()?;
    ensure!(out.contains("\"ExitCode\":4"), "{out}");
    ensure!(host.dewar(&["logs", &gentle]).finish()?.success()? == "ready\nbye\n");

    let deaf = host.name();
    host.dewar(&["run", "-d", "--name", &deaf, "busybox", "sleep", "1000"]).finish()?.success()?;
    host.dewar(&["stop", "-t", "1", &deaf]).finish()?.success()?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &deaf]).finish()?.success()?;
    ensure!(out.contains("\"ExitCode\":137"), "{out}");
    host.dewar(&["rm", &gentle, &deaf]).finish()?.success()?;
    Ok(Outcome::Passed)
}
