//! `podman top` without options reads `/proc` in the mount namespace of the container's process on the host: it finds the
//! container's processes, with its numbers and rights.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let name = podman.sleeper(&["--cap-drop", "all", "--cap-add", "chown"])?;
    podman.ok(&["exec", "-d", "-u", "33", &name, "sleep", "2000"])?;
    let columns = |text: &str| -> Vec<Vec<String>> {
        text.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let top = podman.ok(&["top", &name])?;
    let commands: Vec<&str> = top.lines().skip(1).filter_map(|line| Some(&line[line.find("sleep")?..])).collect();
    ensure!(commands.iter().map(|command| command.trim()).eq(["sleep 1000", "sleep 2000"]), "{top}");
    let rows = columns(&podman.ok(&["top", &name, "user", "pid", "ppid", "state", "seccomp", "capeff"])?);
    ensure!(rows[0] == ["root", "1", "0", "S", "filter", "CHOWN"], "{rows:?}");
    ensure!(rows[1][0] != "root" && rows[1][1] != "1" && rows[1][2..] == ["0", "S", "filter", "none"], "{rows:?}");
    // One that has come since is there, too.
    podman.ok(&["exec", "-d", &name, "sleep", "3000"])?;
    ensure!(podman.ok(&["top", &name, "args"])?.contains("sleep 3000"));
    podman.ok(&["rm", "-f", "-t", "0", &name])?;
    Ok(())
}
