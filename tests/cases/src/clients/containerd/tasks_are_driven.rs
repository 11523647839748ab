//! A detached task: exec, list, pause, resume, metrics, kill, delete.

use anyhow::{Result, ensure};

use super::Ctr;

pub fn run(ctr: &Ctr<'_>) -> Result<()> {
    let name = ctr.host.name();
    ctr.run(&["-d"], &name, &["sleep", "1000"]).finish()?.success()?;
    let exec = |id: &str, script: &str| ctr.any(&["task", "exec", "--exec-id", id, &name, "sh", "-c", script]);
    ensure!(exec("one", "tr '\\0' ' ' </proc/1/cmdline")?.success()? == "sleep 1000 ");
    exec("two", "exit 9")?.exits(9)?;
    let state = || -> Result<String> {
        let list = ctr.ok(&["task", "ls"])?;
        let line = list.lines().find(|line| line.starts_with(&name)).unwrap_or_default().to_owned();
        Ok(line.split_whitespace().last().unwrap_or_default().to_owned())
    };
    ensure!(state()? == "RUNNING");
    ctr.ok(&["task", "pause", &name])?;
    ensure!(state()? == "PAUSED");
    ctr.ok(&["task", "resume", &name])?;
    ensure!(state()? == "RUNNING");
    let metrics = ctr.ok(&["task", "metrics", &name])?;
    ensure!(metrics.contains("memory"), "{metrics}");
    ensure!(ctr.ok(&["task", "ps", &name])?.lines().count() >= 2);
    ctr.ok(&["task", "kill", "-s", "SIGKILL", &name])?;
    // Deleting waits for the end, and tells the exit code.
    ctr.any(&["task", "rm", "-f", &name])?.exits(0)?.complains("137")?;
    ctr.ok(&["containers", "rm", &name])?;
    Ok(())
}
