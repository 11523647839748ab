//! Masked paths have nothing in them.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    fs::create_dir(bundle.rootfs("secrets"))?;
    fs::write(bundle.rootfs("secrets/key"), "secret")?;
    fs::write(bundle.rootfs("secret"), "secret")?;
    bundle.push("/linux/maskedPaths", json!("/secrets")).push("/linux/maskedPaths", json!("/secret"));
    bundle.push("/linux/maskedPaths", json!("/does/not/exist"));
    let out = bundle.sh("ls -A /secrets | wc -l; cat /secret | wc -c; cat /proc/kcore 2>/dev/null | wc -c")?;
    ensure!(out.split_whitespace().eq(["0", "0", "0"]), "{out}");
    ensure!(fs::read_to_string(bundle.rootfs("secrets/key"))? == "secret");
    Ok(())
}
