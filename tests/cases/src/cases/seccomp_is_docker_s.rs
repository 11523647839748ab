//! The default profile refuses what docker's refuses, and `seccomp=unconfined` lifts it.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let out = host.sh(&[], "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status")?;
    ensure!(out.contains("Seccomp:\t2"), "{out}");
    let out = host.sh(&["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status")?;
    ensure!(out.trim_end().ends_with('1'), "{out}");
    let out = host.sh(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status")?;
    ensure!(out.trim_end().ends_with('0'), "{out}");
    // unshare(CLONE_NEWUSER) needs no capability, so that only the filter can refuse it.
    host.run(&[], &["unshare", "-U", "true"])?.exits(1)?;
    host.run(&["--security-opt", "seccomp=unconfined"], &["unshare", "-U", "true"])?.exits(0)?;
    Ok(Outcome::Passed)
}
