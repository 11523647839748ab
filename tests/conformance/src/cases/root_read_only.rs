//! A read-only root takes no file; what is mounted in it does.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/root/readonly", json!(true));
    let out = bundle.sh("touch /file 2>/dev/null || echo refused; touch /dev/shm/file && echo taken")?;
    ensure!(out == "refused\ntaken\n", "{out:?}");
    ensure!(!bundle.rootfs("file").exists());
    Ok(())
}
