//! `exec --cgroup` puts the process into a group below the container's, which has to be there.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.push("/linux/namespaces", json!({ "type": "cgroup" }));
    bundle.push("/mounts", json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" }));
    bundle.set("/process/args", json!(["sleep", "1000"]));
    let container = bundle.create()?;
    container.start()?;
    if container.exec(&[], &["test", "-e", "/sys/fs/cgroup/cgroup.procs"])?.code != 0 {
        return skip("the containers have no cgroup v2 here");
    }
    container.exec_sh("mkdir -p /sys/fs/cgroup/one/two")?;
    for (path, expected) in [("one", "0::/one\n"), ("one/two", "0::/one/two\n"), ("/", "0::/\n")] {
        let out = container.exec(&["--cgroup", path], &["cat", "/proc/self/cgroup"])?.success()?;
        ensure!(out == expected, "{path}: {out:?}");
    }
    container.exec(&["--cgroup", "absent"], &["true"])?.fails().map(drop)
}
