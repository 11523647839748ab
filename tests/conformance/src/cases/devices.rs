//! Devices of the configuration are made as it says.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/devices", json!([
        { "path": "/dev/my-zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o604, "uid": 1000, "gid": 7 },
        { "path": "/dev/sub/my-fifo", "type": "p", "fileMode": 0o600 },
    ]));
    let allow = json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" });
    bundle.push("/linux/resources/devices", allow);
    let out = bundle.sh("stat -c '%F %a %u:%g %t:%T' /dev/my-zero; test -p /dev/sub/my-fifo && head -c 3 /dev/my-zero | wc -c")?;
    ensure!(out == "character special file 604 1000:7 1:5\n3\n", "{out:?}");
    Ok(())
}
