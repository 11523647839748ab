//! What is made of Debian's packages, once, into the user's cache: the lab's userland and the workloads' image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::places::Places;
use crate::step::Outcome;

pub const RELEASE: &str = "bookworm";

/// A folder of the cache that is named after what it is made of, and never seen half made. `make` gets another name for it.
pub fn folder(
    places: &Places,
    name: &str,
    inputs: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<(PathBuf, Outcome)> {
    let digest: String = Sha256::digest(inputs).iter().take(8).map(|b| format!("{b:02x}")).collect();
    let dir = places.cache.join(format!("{name}-{digest}"));
    if dir.exists() {
        return Ok((dir, Outcome::UpToDate));
    }
    let work = places.cache.join(format!("{name}-{digest}.partial"));
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("Failed to remove {}", work.display()))?;
    }
    fs::create_dir_all(&work).with_context(|| format!("Failed to create {}", work.display()))?;
    make(&work)?;
    fs::rename(&work, &dir).with_context(|| format!("Failed to create {}", dir.display()))?;
    Ok((dir, Outcome::Done))
}

/// The command that makes a userland of these packages without documentation; the release and a target have to follow.
pub fn mmdebstrap(packages: &[&str]) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--aptopt=Apt::Install-Recommends \"false\""]);
    for dir in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{dir}/*"));
    }
    command.arg(format!("--include={}", packages.join(",")));
    command
}
