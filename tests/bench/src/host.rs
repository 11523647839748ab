//! The qemu engine on the host itself, in its own time: no counting of instructions makes that repeat.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::stopwatch::{repeat, time};
use crate::{RUNS, report};

/// `stage`: an installation.
pub fn measure(stage: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir().context("cannot make a folder")?;
    let dewar = |args: &[&str]| {
        let mut dewar = Command::new(stage.join("bin/dewar"));
        dewar.arg("--root").arg(dir.path()).args(args);
        dewar
    };
    time(dewar(&["load", "-q", "-i"]).arg(stage.join("lib/dewar/busybox.tar")))?;
    for (what, memory) in [("dewar run", None), ("dewar run -m 64m", Some("64m"))] {
        eprintln!("bench: {what}, engine qemu");
        let run = || {
            let mut run = dewar(&["run", "--rm", "--engine", "qemu"]);
            run.args(memory.iter().flat_map(|memory| ["-m", memory]));
            time(run.args(["busybox", "true"]))
        };
        run()?;
        report(&format!("{what}, engine qemu"), "ms", &repeat(RUNS, run)?);
    }
    eprintln!("bench: dewar exec, engine qemu");
    time(&mut dewar(&["run", "-d", "--engine", "qemu", "--name", "bench", "busybox", "sleep", "1000000"]))?;
    let exec = || time(&mut dewar(&["exec", "bench", "true"]));
    exec()?;
    report("dewar exec, engine qemu", "ms", &repeat(RUNS, exec)?);
    time(&mut dewar(&["rm", "-f", "bench"])).map(drop)
}
