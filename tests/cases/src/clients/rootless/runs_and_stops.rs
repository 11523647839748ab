//! run, exec, stop, kill and rm; root of the container is the user.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let told = podman.sh(&[], "id -u; stat -c %u:%g / /etc/passwd; uname -r")?;
    ensure!(told.starts_with("0\n0:0\n0:0\n") && told.ends_with("-dewar"), "{told}");
    podman.run(&["--rm"], &["sh", "-c", "exit 7"])?.exits(7)?;

    let name = podman.sleeper(&[])?;
    ensure!(podman.ok(&["exec", &name, "sh", "-c", "echo $(id -u) $(cat /proc/1/comm)"])? == "0 sleep");
    ensure!(podman.ok(&["exec", "-u", "1000:1000", &name, "id", "-u"])? == "1000");
    podman.ok(&["stop", "-t", "0", &name])?;
    ensure!(podman.ok(&["inspect", "-f", "{{.State.ExitCode}}", &name])? == "137");
    podman.ok(&["start", &name])?;
    podman.ok(&["kill", "-s", "KILL", &name])?;
    ensure!(podman.ok(&["wait", &name])? == "137");
    podman.ok(&["rm", &name])?;
    Ok(())
}
