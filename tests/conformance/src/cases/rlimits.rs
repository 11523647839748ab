//! Both halves of each rlimit are set.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let limit = |kind: &str, soft: u64, hard: u64| json!({ "type": kind, "soft": soft, "hard": hard });
    bundle.set("/process/rlimits", json!([limit("RLIMIT_NOFILE", 100, 200), limit("RLIMIT_CORE", 0, 4096)]));
    let out = bundle.sh("grep -E 'open files|core file' /proc/self/limits")?;
    let mut lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    lines.sort();
    ensure!(lines.len() == 2, "{out}");
    ensure!(lines.iter().any(|words| words.ends_with(&["files", "100", "200", "files"])), "{out}");
    ensure!(lines.iter().any(|words| words.ends_with(&["size", "0", "4096", "bytes"])), "{out}");
    Ok(())
}
