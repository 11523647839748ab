//! `cargo xtask check`: everything that can be said about the sources without running them.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::lines;
use crate::places::Places;
use crate::stage::cargo;
use crate::step::{Outcome, Steps, cargo_progress};

pub fn check(places: &Places) -> Result<()> {
    let deny = has_cargo_deny(places);
    let mut steps = Steps::new(places, if deny { 5 } else { 4 })?;
    steps.run("file lengths", |_| lines::check(&places.root).map(|()| Outcome::Done))?;
    steps.run("format", |step| {
        step.command(cargo(places).args(["fmt", "--all", "--check"]))?;
        Ok(Outcome::Done)
    })?;
    steps.run("lints", |step| {
        let mut command = cargo(places);
        command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        step.command_with_progress(&mut command, cargo_progress())?;
        Ok(Outcome::Done)
    })?;
    steps.run("documentation", |step| {
        let mut command = cargo(places);
        command
            .args(["doc", "--document-private-items", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings");
        step.command_with_progress(&mut command, cargo_progress())?;
        Ok(Outcome::Done)
    })?;
    if deny {
        steps.run("licences and advisories", |step| {
            step.command(cargo(places).args(["deny", "check", "--config", ".cargo/deny.toml"]))?;
            Ok(Outcome::Done)
        })?;
    } else {
        eprintln!("cargo-deny is not installed: licences and advisories were not checked");
    }
    Ok(())
}

fn has_cargo_deny(places: &Places) -> bool {
    let mut command: Command = cargo(places);
    command.args(["deny", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
