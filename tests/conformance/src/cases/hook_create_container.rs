//! createContainer runs at `create`, when the mount points are made, in the container's namespaces and on the runtime's files.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let volume = host.folder().join("volume");
    fs::create_dir(&volume)?;
    fs::write(volume.join("given"), "")?;
    let mut bundle = host.bundle()?;
    bundle.bind(&volume, "/made", &[]);
    // The namespaces are the process's; the mount point is made, and its mount in these namespaces alone.
    let script = format!(
        "cat >{0}/told; for kind in net mnt; do readlink /proc/self/ns/$kind; done >{0}/namespaces; \
         test -e {1}/made/given && echo seen >{1}/seen-by-hook",
        host.folder().display(),
        bundle.path.join("rootfs").display()
    );
    bundle.set("/hooks/createContainer", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let mut container = bundle.script("cat /seen-by-hook").create()?;
    ensure!(!bundle.rootfs("/made/given").exists(), "the container's mount is in the host's namespace");
    let state: Value = serde_json::from_str(&fs::read_to_string(host.folder().join("told"))?)?;
    ensure!(state["id"] == container.id && ["creating", "created"].contains(&state["status"].as_str().unwrap_or_default()), "{state}");
    let namespaces = fs::read_to_string(host.folder().join("namespaces"))?;
    let seen: Vec<&str> = namespaces.lines().collect();
    for (kind, seen) in ["net", "mnt"].into_iter().zip(seen) {
        let own = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid)).context("the process has no namespaces")?;
        ensure!(own.to_str() == Some(seen), "the hook's {kind} namespace is {seen}, the container's {}", own.display());
    }
    ensure!(container.run()? == "seen\n");
    Ok(())
}
