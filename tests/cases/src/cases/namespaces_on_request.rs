//! User and time namespaces, when they are asked for.

use anyhow::{Context, Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let script = "tr -s ' ' < /proc/self/uid_map; id -u; stat -c %u /bin/busybox; touch /f && stat -c %u /f; \
                  cat /proc/self/setgroups; mount -t tmpfs none /mnt 2>&1 | grep -c denied; chown 70000 /f 2>&1 | grep -c nvalid";
    let out = host.sh(&["--userns", "auto"], script)?;
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    ensure!(lines == ["0 100000 65536", "0", "0", "0", "allow", "1", "1"], "{out}");

    let maps = ["--uidmap", "0:5000:10", "--gidmap", "0:6000:10", "--gidmap", "10:7000:1"];
    let out = host.sh(&maps, "tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map")?;
    let lines: Vec<&str> = out.lines().map(str::trim).collect();
    ensure!(lines == ["0 5000 10", "0 6000 10", "10 7000 1"], "{out}");

    // Files that a container has written keep their owner when it starts again.
    let name = host.name();
    let script = "id -u; [ -e /f ] || touch /f; stat -c %u /f";
    let args = ["run", "--name", &name, "--userns", "auto:size=1000", "busybox", "sh", "-c", script];
    ensure!(host.dewar(&args).finish()?.success()? == "0\n0\n", "the first start");
    ensure!(host.dewar(&["start", "-a", &name]).finish()?.success()? == "0\n0\n", "the second start");
    let told = host.dewar(&["inspect", "-f", "{{json .HostConfig.IDMappings.UidMap}}", &name]).finish()?.success()?;
    ensure!(told.trim() == r#"["0:100000:1000"]"#, "{told}");
    host.dewar(&["rm", &name]).finish()?.success()?;

    let out = host.sh(&["--time-offset", "boottime=864000", "--time-offset", "monotonic=5"], "cut -d. -f1 /proc/uptime")?;
    let uptime: u64 = out.trim().parse().with_context(|| format!("no uptime: {out}"))?;
    ensure!((864_000..900_000).contains(&uptime), "{uptime} seconds up");

    let refused = host.run(&["--userns", "keep-id"], &["true"])?;
    refused.exits(125)?.complains("only host, auto and auto:size=N")?;
    host.run(&["--uidmap", "1:1:1"], &["true"])?.exits(125)?.complains("root of the container")?;
    Ok(Outcome::Passed)
}
