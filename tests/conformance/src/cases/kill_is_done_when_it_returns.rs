//! A container that was killed has stopped when `kill` returns, also where the news comes from another kernel.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    if !host.own_kernel()? {
        return skip("the kernel that kills ends the process when it likes");
    }
    let mut bundle = host.bundle()?;
    bundle.set("/process/args", json!(["sleep", "1000"]));
    let container = bundle.create()?;
    container.start()?;
    container.kill("KILL")?;
    let status = container.status()?;
    ensure!(status == "stopped", "{status}");
    container.call(&["delete"])?.success().map(drop)
}
