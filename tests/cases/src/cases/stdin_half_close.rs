//! The end of the input reaches the command, and its output arrives after it.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let out = host.dewar(&["run", "--rm", "-i", "busybox", "cat"]).input("x\n").finish()?.success()?;
    ensure!(out == "x\n", "{out:?}");
    let late = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo after the end"];
    let out = host.dewar(&late).input("one\ntwo").finish()?.success()?;
    ensure!(out == "one\ntwoafter the end\n", "{out:?}");
    // Without -i the command has no input at all.
    let out = host.dewar(&["run", "--rm", "busybox", "wc", "-c"]).input("not for you").finish()?.success()?;
    ensure!(out.trim() == "0", "{out:?}");
    Ok(Outcome::Passed)
}
