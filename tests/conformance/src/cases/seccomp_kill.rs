//! A call can cost the process its life.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/linux/seccomp", json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS" }],
    }));
    let out = bundle.sh("echo before; sh -c 'mkdir /made'; echo $?; mkdir /made; true")?;
    ensure!(out.starts_with("before\n159\n") && !bundle.rootfs("made").exists(), "{out:?}");
    Ok(())
}
