//! A namespace with a path is another container's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/hostname", json!("the-first")).script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let mut second = host.bundle()?;
    if let Some(config) = second.config.as_object_mut() {
        config.remove("hostname");
    }
    for kind in ["ipc", "uts"] {
        second.without_namespace(kind);
        let path = format!("/proc/{}/ns/{kind}", container.pid);
        second.push("/linux/namespaces", json!({ "type": kind, "path": path }));
    }
    let script = "hostname; readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts";
    let (first, second) = (container.exec_sh(script)?, second.sh(script)?);
    ensure!(first == second && first.starts_with("the-first\n"), "{first} but {second}");
    Ok(())
}
