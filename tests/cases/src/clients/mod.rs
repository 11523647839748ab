//! Cases in which an engine drives `dewar-oci` as it would drive runc: unmodified, from Debian's packages.
//!
//! Each engine has a state of its own below the cases' root. After each case nothing of its containers may be left, nor
//! any machine. Containers have no network but the loopback.

mod both;
mod containerd;
mod daemon;
mod docker;
mod engine;
mod podman;
mod rootless;
mod workloads;

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};
pub use daemon::end as end_daemons;

use crate::{Case, Host, Outcome, processes_mentioning, wait_until_gone};

/// Every case of every client.
pub fn all() -> Vec<Case> {
    let clients = [both::all(), podman::all(), rootless::all(), docker::all(), containerd::all(), workloads::all()];
    clients.into_iter().flatten().collect()
}

/// Why this host cannot run cases of a client that consists of these programs.
fn missing(programs: &[&str]) -> Option<Outcome> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return Some(Outcome::Skipped("the client needs root".into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let absent = programs.iter().find(|program| !there(program))?;
    Some(Outcome::Skipped(format!("{absent} is not installed")))
}

fn runtime(host: &Host) -> PathBuf {
    host.stage.join("bin/dewar-oci")
}

fn busybox_archive(host: &Host) -> String {
    host.stage.join("lib/dewar/busybox.tar").display().to_string()
}

/// Processes of this installation that have a machine. Cases of clients run one by one, so that they can be compared.
#[derive(Debug)]
struct Machines(Vec<i32>);

impl Machines {
    fn now(host: &Host) -> Self {
        Self(processes_mentioning(&host.stage.join("bin/dewar-supervisor").display().to_string()))
    }

    /// Checks that those which came meanwhile are gone, or will be at once.
    fn nothing_new(&self, host: &Host) -> Result<()> {
        let new: Vec<i32> = Self::now(host).0.into_iter().filter(|pid| !self.0.contains(pid)).collect();
        wait_until_gone(&new)
    }
}

/// What all cases of a client need done before them; when it failed, it has failed for all.
struct Once(OnceLock<Result<(), String>>);

impl Once {
    const fn new() -> Self {
        Self(OnceLock::new())
    }

    fn run(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.0.get_or_init(|| work().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!(e))
    }
}
