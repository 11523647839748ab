//! The root mount has the propagation that the configuration names.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    for (propagation, shared) in [("shared", true), ("private", false)] {
        let mut bundle = host.bundle()?;
        bundle.set("/linux/rootfsPropagation", json!(propagation));
        let mounts = bundle.sh("cat /proc/self/mountinfo")?;
        let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("the root is no mount")?;
        let (fields, _) = root.split_once(" - ").context("a mount without a filesystem")?;
        if shared && !fields.contains(" shared:") && !host.own_kernel()? {
            return skip("the runtime sets it before it makes the root a mount of its own");
        }
        ensure!(fields.contains(" shared:") == shared, "{propagation}: {root}");
    }
    Ok(())
}
