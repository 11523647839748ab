//! `version`, `doctor`, `completion` and help: what scripts and shells ask for.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let version: Value = serde_json::from_str(&host.dewar(&["version", "--format", "json"]).finish()?.success()?)?;
    let number = version["Client"]["Version"].as_str().context("a version")?;
    ensure!(version["Client"]["Os"] == "linux" && version["Client"]["Arch"] == "amd64", "{version}");
    let out = host.dewar(&["version", "--format", "{{.Client.Version}}"]).finish()?.success()?;
    ensure!(out.trim() == number, "{out}");
    let out = host.dewar(&["--version"]).finish()?.success()?;
    ensure!(out.trim() == format!("dewar {number}"), "{out}");

    // Cases run where something can.
    let doctor = host.dewar(&["doctor"]).finish()?.success()?;
    for subject in ["kvm", "qemu", "kernel", "initramfs", "cgroups", "vsock", "engine"] {
        ensure!(doctor.lines().any(|line| line.split_whitespace().nth(1) == Some(subject)), "{subject}: {doctor}");
    }

    let script = host.dewar(&["completion", "bash"]).finish()?.success()?;
    ensure!(script.contains("complete -F _dewar"), "{script}");
    understood_by_bash(script.as_bytes())?;
    host.dewar(&["completion", "tcsh"]).finish()?.exits(125)?.complains("tcsh")?;

    let help = host.dewar(&["run", "--help"]).finish()?.success()?;
    ensure!(help.contains("Examples:") && help.contains("--cpuset-cpus"), "{help}");
    host.dewar(&["bogus"]).finish()?.complains("'bogus' is not a dewar command")?;
    host.dewar(&["ps", "--bogus"]).finish()?.exits(125)?.complains("unknown flag: --bogus")?;
    Ok(Outcome::Passed)
}

fn understood_by_bash(script: &[u8]) -> Result<()> {
    let bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn();
    // Not everyone has it.
    let Ok(mut bash) = bash else { return Ok(()) };
    bash.stdin.take().context("no stdin")?.write_all(script)?;
    ensure!(bash.wait()?.success(), "bash does not understand its completions");
    Ok(())
}
