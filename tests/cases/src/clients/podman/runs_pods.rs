//! Containers of a pod share one machine and its network, IPC and host name; each has its own files and limits.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let pod = podman.host.name();
    // Where cgroups are v2, podman 4.3 gives a pod's own cgroup device rules that deny everything, also to crun.
    let apart = "--share-parent=false";
    podman.ok(&["pod", "create", "--name", &pod, "--network", "none", "--hostname", "shared", apart])?;
    let member = |name: &str, flags: &[&str]| -> Result<()> {
        let args = [&["run", "-d", "--pod", &pod, "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
        podman.ok(&args).map(drop)
    };
    let [one, two] = [podman.host.name(), podman.host.name()];
    member(&one, &["-m", "64m"])?;
    member(&two, &["-m", "32m"])?;
    let sh = |name: &str, script: &str| podman.ok(&["exec", name, "sh", "-c", script]);
    let machine = "cat /proc/sys/kernel/random/boot_id; hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc";
    ensure!(sh(&one, machine)? == sh(&two, machine)?, "two machines");
    ensure!(sh(&one, "hostname")? == "shared");
    ensure!(sh(&one, "cat /sys/fs/cgroup/memory.max")? == "67108864");
    ensure!(sh(&two, "cat /sys/fs/cgroup/memory.max")? == "33554432");
    sh(&one, "echo private >/file")?;
    podman.any(&["exec", &two, "cat", "/file"])?.exits(1)?;
    sh(&one, "nc -l -p 8080 -e echo over the loopback >/dev/null 2>&1 & while ! grep -q :1F90 /proc/net/tcp*; do :; done")?;
    ensure!(sh(&two, "nc 127.0.0.1 8080 </dev/null")? == "over the loopback");
    podman.ok(&["rm", "-f", &one])?;
    ensure!(sh(&two, "echo alive")? == "alive");
    podman.ok(&["pod", "rm", "-f", "-t", "0", &pod])?;
    Ok(())
}
