//! A hook of the host without an environment has the runtime's, one in the container the container's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let hook = |script: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]);
    bundle.set("/hooks", json!({
        "prestart": hook("test -n \"$PATH\" && test -z \"$OF_THE_CONTAINER\""),
        "startContainer": hook("test \"$OF_THE_CONTAINER\" = yes"),
    }));
    bundle.push("/process/env", json!("OF_THE_CONTAINER=yes"));
    ensure!(bundle.sh("echo runs")? == "runs\n");
    Ok(())
}
