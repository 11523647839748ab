//! Programs from Debian's packages at work, run by podman in an image of such packages: whatever they need of a machine, a
//! kernel and a root filesystem has to be there. Their clients run beside them, since there is no network.
//!
//! `DEWAR_CASES_WORKLOADS` names the folder that xtask makes: `store`, podman's, with the image `debian`, and `packages`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::engine::{self, Engine, Kind};
use super::podman;
use crate::{Host, Outcome};

cases_with! { "workload_", with;
    apt_installs,
    bash_keeps_jobs,
    gcc_builds,
    nginx_serves,
    postgres_recovers,
    python_shares_memory,
    redis_persists,
}

/// podman with the image store beside its own.
const WORKLOADS: Kind = Kind { command, image: "debian", prepare, ..podman::PODMAN };

fn with(host: &Host, case: fn(&Engine<'_>) -> Result<()>) -> Result<Outcome> {
    if folder().is_none() {
        return Ok(Outcome::Skipped("the image is made by `cargo xtask test workload_`".into()));
    }
    engine::with(host, &WORKLOADS, case)
}

fn folder() -> Option<PathBuf> {
    std::env::var_os("DEWAR_CASES_WORKLOADS").map(PathBuf::from)
}

/// The folder with packages that are not in the image.
fn packages() -> Result<PathBuf> {
    Ok(folder().context("DEWAR_CASES_WORKLOADS is not set")?.join("packages"))
}

fn command(engine: &Engine<'_>) -> Command {
    let mut command = podman::command(engine);
    if let Some(folder) = folder() {
        command.arg("--storage-opt").arg(format!("additionalimagestore={}", folder.join("store").display()));
    }
    command
}

fn prepare(engine: &Engine<'_>) -> Result<()> {
    engine.ok(&["image", "exists", WORKLOADS.image]).map(drop)
}
