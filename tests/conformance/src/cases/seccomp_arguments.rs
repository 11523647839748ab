//! A rule may depend on arguments.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    // Of kill(2) only signal 10, and of the others all.
    bundle.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{
            "names": ["kill"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{ "index": 1, "value": 10, "op": "SCMP_CMP_EQ" }],
        }],
    }));
    let out = bundle.sh("trap 'echo usr2' USR2; kill -10 $$ 2>/dev/null || echo refused; kill -12 $$; echo on")?;
    ensure!(out == "refused\nusr2\non\n", "{out:?}");
    Ok(())
}
