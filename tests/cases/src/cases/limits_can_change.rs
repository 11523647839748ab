//! `update` changes limits in a running container and for its next start; a running machine does not grow.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

const SHOW: &str = "cd /sys/fs/cgroup && cat memory.max memory.swap.max cpu.max pids.max cpu.weight";

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let run = ["run", "-d", "--name", &name, "-m", "64m", "busybox", "sleep", "1000"];
    host.dewar(&run).finish()?.success()?;
    let seen = || -> Result<Vec<String>> {
        let out = host.dewar(&["exec", &name, "sh", "-c", SHOW]).finish()?.success()?;
        Ok(out.lines().map(str::to_owned).collect())
    };
    let flags = "--memory 40m --memory-swap 60m --cpus 0.5 --pids-limit 30 --cpu-shares 512";
    let args: Vec<&str> = ["update"].into_iter().chain(flags.split(' ')).chain([name.as_str()]).collect();
    ensure!(host.dewar(&args).finish()?.success()?.trim() == name, "update does not say whose limits changed");
    let changed = ["41943040", "20971520", "50000 100000", "30", "50"];
    let first = seen()?;
    ensure!(first[..4] == changed[..4] && first[4] != "100", "{first:?}");

    let refused = host.dewar(&["update", "-m", "1g", "--memory-swap", "2g", &name]).finish()?;
    refused.exits(1)?.complains("cannot grow while it runs")?;
    host.dewar(&["update", "--cpus", "2", &name]).finish()?.exits(1)?.complains("cannot grow while it runs")?;
    host.dewar(&["update", "-m", "100m", &name]).finish()?.exits(1)?.complains("memoryswap")?;
    host.dewar(&["update", &name]).finish()?.exits(125)?.complains("one or more flags")?;
    ensure!(seen()? == first, "a refused change took effect");

    host.dewar(&["stop", "-t", "0", &name]).finish()?.success()?;
    host.dewar(&["update", "-m", "1g", "--memory-swap", "-1", "--cpus", "2", &name]).finish()?.success()?;
    host.dewar(&["start", &name]).finish()?.success()?;
    let second = seen()?;
    ensure!(second[..4] == ["1073741824", "max", "200000 100000", "30"], "{second:?}");
    ensure!(second[4] == first[4], "the weight did not survive the restart: {second:?}");
    let cpus = host.dewar(&["exec", &name, "nproc"]).finish()?.success()?;
    ensure!(cpus.trim() == "2", "the machine has {cpus} CPUs");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}";
    let told = host.dewar(&["inspect", "-f", format, &name]).finish()?.success()?;
    ensure!(told.trim() == "1073741824 30", "{told}");
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
