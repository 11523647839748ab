//! `exec` runs in the container's namespaces, with its own user, environment, input and exit code.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    host.dewar(&["run", "-d", "--name", &name, "-h", "inside", "busybox", "sleep", "1000"]).finish()?.success()?;
    let exec = |args: &[&str]| {
        let all: Vec<&str> = ["exec"].iter().chain(args).copied().collect();
        host.dewar(&all)
    };
    let out = exec(&[&name, "sh", "-c", "hostname; readlink /proc/self/ns/mnt; readlink /proc/1/ns/mnt; cat /proc/1/comm"]).finish()?;
    let text = out.success()?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines[0] == "inside" && lines[1] == lines[2] && lines[3] == "sleep", "{text}");
    exec(&[&name, "sh", "-c", "exit 3"]).finish()?.exits(3)?;
    exec(&[&name, "no-such-command"]).finish()?.exits(127)?;
    exec(&[&name, "/etc/passwd"]).finish()?.exits(126)?;
    let out = exec(&["-u", "nobody", "-e", "X=y", "-w", "/tmp", &name, "sh", "-c", "echo $(id -u) $X $(pwd)"]).finish()?;
    ensure!(out.success()?.trim() == "65534 y /tmp");
    let out = exec(&["-i", &name, "cat"]).input("through").finish()?.success()?;
    ensure!(out == "through", "{out}");
    // A background child that keeps the output open does not hold the exec.
    let out = exec(&[&name, "sh", "-c", "sleep 1000 & echo done"]).finish()?.success()?;
    ensure!(out == "done\n", "{out}");
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    exec(&[&name, "true"]).finish()?.exits(1)?;
    Ok(Outcome::Passed)
}
