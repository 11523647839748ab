//! A process that wants more memory than the limit is killed.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 64 << 20 }));
    let script = "echo start; sh -c 'tail -c 200000000 /dev/zero >/dev/null'; echo $?";
    let (finished, mut container) = bundle.script(script).try_create(&[])?;
    if finished.code != 0 && !host.own_kernel()? {
        return skip(format!("this host's cgroups take no such limit: {}", finished.err.trim()));
    }
    finished.success()?;
    ensure!(container.run()? == "start\n137\n");
    Ok(())
}
