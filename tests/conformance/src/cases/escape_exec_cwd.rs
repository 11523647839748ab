//! A working directory of `exec` below /proc/self/fd leads to nothing of the host.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let mark = host.folder().join("only-on-the-host");
    fs::write(&mark, "")?;
    let script = format!("cat ../../../../../..{} && echo escaped", mark.display());
    for number in 3..12 {
        let finished = container.exec(&["--cwd", &format!("/proc/self/fd/{number}")], &["sh", "-c", &script])?;
        ensure!(!finished.text().contains("escaped"), "through descriptor {number}");
    }
    Ok(())
}
