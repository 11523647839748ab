//! `top`, `stats` and `ps` tell of a running container, for people and as JSON.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "sleep 1234 & echo ready; while :; do :; done";
    let run = ["run", "-d", "--name", &name, "-m", "64m", "-l", "k=v", "busybox", "sh", "-c", script];
    let id = host.dewar(&run).finish()?.success()?;
    let id = &id[..12];
    wait_for_output(host, &name)?;

    let top = host.dewar(&["top", &name]).finish()?.success()?;
    let head: Vec<&str> = top.lines().next().context("a head")?.split_whitespace().collect();
    ensure!(head == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "{top}");
    ensure!(top.lines().count() == 3 && top.contains("sleep 1234") && top.contains("while :"), "{top}");

    let stats = host.dewar(&["stats", "--no-stream", "--format", "json", &name]).finish()?.success()?;
    let stats: Value = serde_json::from_str(stats.trim())?;
    ensure!(stats["Name"] == name && stats["ID"] == id && stats["PIDs"] == "2", "{stats}");
    ensure!(stats["MemUsage"].as_str().is_some_and(|usage| usage.ends_with(" / 64MiB")), "{stats}");
    let busy = stats["CPUPerc"].as_str().and_then(|share| share.strip_suffix('%')).and_then(|n| n.parse::<f64>().ok());
    ensure!(busy.is_some_and(|share| share > 1.0), "{stats}");

    let filter = format!("name={name}");
    let ps = host.dewar(&["ps", "--filter", &filter, "--format", "json"]).finish()?.success()?;
    let ps: Value = serde_json::from_str(ps.trim())?;
    ensure!(ps["ID"] == id && ps["Names"] == name && ps["Image"] == "busybox" && ps["State"] == "running", "{ps}");
    ensure!(ps["Labels"] == "k=v" && ps["Status"].as_str().is_some_and(|s| s.starts_with("Up ")), "{ps}");
    host.dewar(&["kill", &name]).finish()?.success()?;
    host.dewar(&["wait", &name]).finish()?.success()?;

    host.dewar(&["top", &name]).finish()?.exits(1)?.complains("is not running")?;
    let stats = host.dewar(&["stats", "--no-stream", "--format", "{{.PIDs}}", &name]).finish()?.success()?;
    ensure!(stats == "--\n", "{stats}");
    let ps = host.dewar(&["ps", "-a", "--filter", &filter, "--format", "{{.Status}}"]).finish()?.success()?;
    ensure!(ps.starts_with("Exited (137) "), "{ps}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}

fn wait_for_output(host: &Host, name: &str) -> Result<()> {
    let mut follower = host.dewar(&["logs", "-f", name]).spawn()?;
    let mut line = String::new();
    BufReader::new(follower.stdout.take().context("no stdout")?).read_line(&mut line)?;
    follower.kill()?;
    follower.wait()?;
    ensure!(line == "ready\n", "{line}");
    Ok(())
}
