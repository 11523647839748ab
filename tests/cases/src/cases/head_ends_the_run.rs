//! `dewar run … yes | head -1` ends, and so does its container.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let mut command = host.dewar(&["run", "--rm", "--name", &name, "busybox", "yes"]).command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    let mut line = String::new();
    {
        let mut out = BufReader::new(child.stdout.take().context("no stdout")?);
        out.read_line(&mut line)?;
    }
    ensure!(line == "y\n");
    child.wait()?;
    Ok(Outcome::Passed)
}
