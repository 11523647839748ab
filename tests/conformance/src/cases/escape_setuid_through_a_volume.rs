//! noNewPrivileges holds for a setuid program that came through a volume.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::copy("/bin/busybox", shared.join("busybox"))?;
    fs::set_permissions(shared.join("busybox"), fs::Permissions::from_mode(0o4755))?;
    let mut bundle = host.bundle()?;
    bundle.bind(&shared, "/mnt", &["rw"]).set("/process/user/uid", json!(1000));
    let out = bundle.sh("/mnt/busybox grep Uid: /proc/self/status")?;
    ensure!(out.split_whitespace().eq(["Uid:", "1000", "1000", "1000", "1000"]), "{out}");
    Ok(())
}
