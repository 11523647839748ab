//! A filtered call fails with the errno that was asked for.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let rule = |names: &[&str], errno: u32| json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
    bundle.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [rule(&["mkdir", "mkdirat"], 28), rule(&["rmdir", "unlinkat"], 5)],
    }));
    let out = bundle.sh("mkdir /made 2>&1; rmdir /tmp 2>&1; echo on")?;
    ensure!(out.contains("No space left on device") && out.contains("Input/output error"), "{out}");
    ensure!(out.ends_with("on\n") && !bundle.rootfs("made").exists(), "{out}");
    Ok(())
}
