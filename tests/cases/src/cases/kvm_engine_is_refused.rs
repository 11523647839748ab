//! Where there is no KVM, or one that only emulates, `--engine kvm` says so and what to do; `doctor` says the same.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let doctor = host.dewar(&["doctor", "--format", "json"]).finish()?.success()?;
    let findings: Vec<Value> = doctor.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let kvm = findings.iter().find(|finding| finding["Subject"] == "kvm");
    if kvm.is_some_and(|finding| finding["Level"] == "ok") {
        return Ok(Outcome::Skipped("KVM works here".into()));
    }
    let text = kvm.and_then(|finding| finding["Text"].as_str()).unwrap_or_default();
    ensure!(text.contains("/dev/kvm"), "{doctor}");
    let run = host.run(&["--engine", "kvm"], &["true"])?;
    run.exits(125)?.complains("The kvm engine cannot run here")?.complains("--engine qemu")?;
    let run = host.dewar(&["run", "--rm", "busybox", "true"]).env("DEWAR_ENGINE", "kvm").finish()?;
    run.exits(125)?.complains("The kvm engine cannot run here")?;
    host.run(&["--engine", "xen"], &["true"])?.exits(125)?.complains("xen")?;
    Ok(Outcome::Passed)
}
