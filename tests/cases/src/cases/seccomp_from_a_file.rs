//! `--security-opt seccomp=FILE` puts the caller's filter in place of the usual one.

use std::fs;

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["kill"], "action": "SCMP_ACT_ERRNO",
         "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]}
    ]
}"#;

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("profile"), PROFILE)?;
    let option = format!("seccomp={}", path("profile"));
    let script = "mkdir /x 2>&1 | grep -o 'No space left on device'; kill -12 $$ 2>&1 | grep -o 'not permitted'; \
        kill -0 $$ && grep Seccomp: /proc/self/status";
    let out = host.sh(&["--security-opt", &option], script)?;
    ensure!(out == "No space left on device\nnot permitted\nSeccomp:\t2\n", "{out}");
    let out = host.sh(&["--security-opt", "seccomp=unconfined"], "mkdir /x && grep Seccomp: /proc/self/status")?;
    ensure!(out == "Seccomp:\t0\n", "{out}");
    fs::write(path("bad"), "{\"defaultAction\": \"SCMP_ACT_BOGUS\"}")?;
    for (name, sentence) in [("bad", "SCMP_ACT_BOGUS"), ("missing", "missing")] {
        let option = format!("seccomp={}", path(name));
        host.run(&["--security-opt", &option], &["true"])?.exits(125)?.complains(sentence)?;
    }
    host.run(&["--security-opt", "bogus"], &["true"])?.exits(125)?.complains("bogus")?;
    Ok(Outcome::Passed)
}
