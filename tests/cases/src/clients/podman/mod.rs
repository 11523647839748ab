//! podman, with `--runtime dewar-oci`, and what only it has.

use std::process::Command;

use anyhow::Result;

use super::engine::{self, Engine, Kind};
use super::{Once, busybox_archive, runtime};
use crate::{Host, Outcome};

cases_with! { "podman_", with;
    gives_init,
    maps_users,
    runs_health_checks,
    runs_pods,
    tops_without_options,
}

/// podman as these cases use it.
pub const PODMAN: Kind = Kind {
    name: "podman",
    programs: &["podman", "conmon"],
    command,
    image: "busybox",
    prepare,
    rm_refused: 2,
    exec_unknown: 127,
    exec_refused: 255,
    build_flags: &["--isolation", "oci", "--pull=never"],
};

/// Runs a case with podman.
///
/// # Errors
/// Those of the case, and what it left.
pub fn with(host: &Host, case: fn(&Engine<'_>) -> Result<()>) -> Result<Outcome> {
    engine::with(host, &PODMAN, case)
}

/// podman with a state of the case's engine, and `dewar-oci`.
pub fn command(podman: &Engine<'_>) -> Command {
    let dir = |part: &str| podman.dir.join(part);
    let mut command = Command::new("podman");
    command.arg("--root").arg(dir("root")).arg("--runroot").arg(dir("run")).args(["--storage-driver", "overlay"]);
    command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    command.arg("--runtime").arg(runtime(podman.host));
    command
}

fn prepare(podman: &Engine<'_>) -> Result<()> {
    static DONE: Once = Once::new();
    DONE.run(|| podman.ok(&["load", "-q", "-i", &busybox_archive(podman.host)]).map(drop))
}
