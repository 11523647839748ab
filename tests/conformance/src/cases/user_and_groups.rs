//! The process has the uid, the gid and just the additional groups that were asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/user", json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 77] }));
    let out = bundle.sh("id -u; id -g; grep Groups: /proc/self/status; touch /tmp/mine")?;
    let words: Vec<&str> = out.split_whitespace().collect();
    ensure!(words == ["1000", "1001", "Groups:", "5", "77"], "{out}");
    let made = fs::metadata(bundle.rootfs("tmp/mine"))?;
    ensure!((made.uid(), made.gid()) == (1000, 1001), "its files are {}:{}", made.uid(), made.gid());
    Ok(())
}
