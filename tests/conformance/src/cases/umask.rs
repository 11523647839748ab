//! `user.umask` is the process's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let out = bundle.set("/process/user/umask", json!(0o027)).sh("umask; touch /made")?;
    ensure!(out == "0027\n", "{out:?}");
    ensure!(fs::metadata(bundle.rootfs("made"))?.permissions().mode() & 0o777 == 0o640);
    Ok(())
}
