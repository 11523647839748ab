//! Environment, directory and entry point come from the image and the flags, as docker merges them.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let flags = ["-e", "ONE=1", "--env", "TWO", "-w", "/not/there/yet"];
    let args: Vec<&str> =
        ["run", "--rm"].iter().chain(&flags).chain(&["busybox", "sh", "-c", "echo $ONE $TWO $PATH $HOME; pwd"]).copied().collect();
    let out = host.dewar(&args).env("TWO", "zwei").finish()?.success()?;
    let lines: Vec<&str> = out.lines().collect();
    ensure!(lines[0].starts_with("1 zwei /") && lines[0].ends_with(" /root"), "{out}");
    ensure!(lines[1] == "/not/there/yet", "{out}");
    let out = host.run(&["--entrypoint", "echo"], &["from", "the", "entry point"])?.success()?;
    ensure!(out == "from the entry point\n", "{out}");
    Ok(Outcome::Passed)
}
