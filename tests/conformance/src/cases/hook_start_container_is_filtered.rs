//! A startContainer hook runs under the seccomp filter of the process.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    for no_new_privileges in [false, true] {
        let mut bundle = host.bundle()?;
        bundle.set("/process/noNewPrivileges", json!(no_new_privileges));
        bundle.set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 }],
            }),
        );
        let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", "mkdir /tmp/made || echo refused >/tmp/refused"] });
        bundle.set("/hooks/startContainer", json!([hook]));
        let out = bundle.sh("ls /tmp")?;
        ensure!(out == "refused\n", "noNewPrivileges {no_new_privileges}: {out:?}");
    }
    Ok(())
}
