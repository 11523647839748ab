//! Without room for sockets and logs nothing can run: `run` and `start` say so, and leave nothing; `create` needs none.

use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::{Host, Mounted, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    // Only its own folder: folders and sockets take no room of a tmpfs but that for their names.
    let Some(disk) = Mounted::tmpfs("64k,nr_inodes=1")? else {
        return Ok(Outcome::Skipped("only root can mount a small filesystem".into()));
    };
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(dir.path());
    symlink(disk.path(), dir.path().join("run"))?;
    let archive = host.stage.join("lib/dewar/busybox.tar").display().to_string();
    host.dewar(&["load", "-q", "-i", &archive]).finish()?.success()?;

    for flags in [&["--rm"][..], &["--rm", "-d"], &["--rm", "-i"]] {
        let args: Vec<&str> = ["run"].iter().chain(flags).chain(&["busybox", "true"]).copied().collect();
        let run = host.dewar(&args).finish()?;
        run.exits(125)?.complains("No space left on device")?.complains("/run/")?;
        host.nothing_left()?;
    }
    let id = host.dewar(&["create", "busybox", "true"]).finish()?.success()?;
    host.dewar(&["start", id.trim()]).finish()?.exits(1)?.complains("No space left on device")?;
    host.dewar(&["rm", id.trim()]).finish()?.success()?;
    host.nothing_left()?;
    ensure!(files_below(disk.path()).is_empty(), "{:?}", files_below(disk.path()));
    Ok(Outcome::Passed)
}
