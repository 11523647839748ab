//! `--user`, `--cap-add`, `--cap-drop`, `--privileged` and `--security-opt` decide what the process has.

use anyhow::{Result, ensure};

use super::Engine;

const STATUS: &str = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\n\\t'";

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let status = |flags: &[&str]| engine.sh(flags, STATUS);
    let ids = engine.sh(&["--user", "1000:100", "--group-add", "50"], "id -u; id -g; id -G")?;
    ensure!(ids == "1000\n100\n100 50", "{ids}");
    let default = status(&[])?;
    ensure!(default.contains("NoNewPrivs:0Seccomp:2"), "{default}");
    let none = status(&["--cap-drop", "all", "--security-opt", "no-new-privileges"])?;
    ensure!(none.starts_with("CapEff:0000000000000000CapBnd:0000000000000000NoNewPrivs:1"), "{none}");
    let net_admin = status(&["--cap-drop", "all", "--cap-add", "NET_ADMIN"])?;
    ensure!(net_admin.starts_with("CapEff:0000000000001000"), "{net_admin}");
    let unconfined = status(&["--security-opt", "seccomp=unconfined"])?;
    ensure!(unconfined.ends_with("Seccomp:0"), "{unconfined}");
    let privileged = status(&["--privileged"])?;
    // Engines grant what they know of and what the host's root has; SYS_ADMIN is among them.
    let effective = privileged.strip_prefix("CapEff:").and_then(|rest| u64::from_str_radix(rest.get(..16)?, 16).ok());
    ensure!(effective.is_some_and(|bits| bits >> 21 & 1 == 1), "{privileged}");
    Ok(())
}
