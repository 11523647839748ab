//! `update` of a quota alone keeps the period, and of a period alone the quota: runc's rule. crun, which also has no
//! `events`, lets the other number go.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    host.needs_verb("update")?;
    host.needs_verb("events")?;
    let mut bundle = host.bundle()?;
    bundle.push("/mounts", json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }));
    bundle.push("/linux/namespaces", json!({ "type": "cgroup" }));
    if bundle.sh("test -e /sys/fs/cgroup/cpu.max || echo none")? == "none\n" {
        return skip("the container sees no cpu.max of cgroup v2");
    }

    bundle.set("/linux/resources/cpu", json!({ "quota": 400_000, "period": 800_000 }));
    let container = bundle.script("exec sleep 1000").create()?;
    container.start()?;
    for (flag, value, expected) in [
        ("--cpu-period", "900000", "400000 900000\n"),
        // More than one processor, were the period the default one.
        ("--cpu-quota", "600000", "600000 900000\n"),
        ("--cpu-quota", "-1", "max 900000\n"),
    ] {
        container.call(&["update", flag, value])?.success()?;
        let out = container.exec_sh("cat /sys/fs/cgroup/cpu.max")?;
        ensure!(out == expected, "{flag} {value}: {out:?}");
    }
    Ok(())
}
