//! A container that writes without end costs the host two log files of 16 MiB, and its last lines are kept.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, files_below};

const MOST: u64 = 34 << 20;

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "yes 0123456789abcdef | head -c 64000000; echo; echo the end";
    let id = host.dewar(&["run", "-d", "--name", &name, "busybox", "sh", "-c", script]).finish()?.success()?;
    let out = host.dewar(&["wait", &name]).finish()?.success()?;
    ensure!(out == "0\n", "{out}");
    let folder = host.root.join("containers").join(id.trim());
    let logs: Vec<_> = files_below(&folder)
        .into_iter()
        .filter(|(path, _)| path.file_stem().is_some_and(|name| name == "log"))
        .collect();
    let total: u64 = logs.iter().map(|(_, size)| size).sum();
    ensure!(logs.len() == 2 && total < MOST && total > 16 << 20, "{logs:?}");
    let out = host.dewar(&["logs", "--tail", "2", &name]).finish()?.success()?;
    ensure!(out.ends_with("\nthe end\n"), "{out}");
    let all = host.dewar(&["logs", &name]).finish()?;
    ensure!(all.code == 0 && (all.out.len() as u64) < MOST, "{} bytes", all.out.len());
    host.dewar(&["rm", &name]).finish()?.success()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(Outcome::Passed)
}
