//! docker: dockerd and its containerd, with Dewar as the default runtime, and what only it has.

use std::process::Command;

use anyhow::Result;

use super::engine::{self, Engine, Kind};
use super::{Once, busybox_archive, daemon, runtime};
use crate::{Host, Outcome};

cases_with! { "docker_", with;
    runs_health_checks,
}

static DOCKER: Kind = Kind {
    name: "docker",
    programs: &["docker", "dockerd", "containerd", "containerd-shim-runc-v2"],
    command,
    image: "busybox",
    prepare,
    rm_refused: 1,
    exec_unknown: 126,
    exec_refused: 1,
    build_flags: &[],
};

/// Runs a case with docker.
///
/// # Errors
/// Those of the case, and what it left.
pub fn with(host: &Host, case: fn(&Engine<'_>) -> Result<()>) -> Result<Outcome> {
    engine::with(host, &DOCKER, case)
}

fn address(docker: &Engine<'_>) -> String {
    format!("unix://{}", docker.dir.join("docker.sock").display())
}

fn command(docker: &Engine<'_>) -> Command {
    let mut command = Command::new("docker");
    command.arg("-H").arg(address(docker)).env("DOCKER_BUILDKIT", "0").env("DOCKER_CONFIG", &docker.dir);
    command
}

fn prepare(docker: &Engine<'_>) -> Result<()> {
    static DONE: Once = Once::new();
    DONE.run(|| start(docker))
}

fn start(docker: &Engine<'_>) -> Result<()> {
    std::fs::create_dir_all(&docker.dir)?;
    let dir = |part: &str| docker.dir.join(part);
    let mut command = Command::new("dockerd");
    command.arg("-H").arg(address(docker));
    for (flag, part) in [("--data-root", "root"), ("--exec-root", "run"), ("--pidfile", "pid")] {
        command.arg(flag).arg(dir(part));
    }
    let config = dir("daemon.json");
    std::fs::write(&config, "{}")?;
    command.arg("--config-file").arg(config);
    command.arg("--add-runtime").arg(format!("dewar={}", runtime(docker.host).display()));
    command.args(["--default-runtime", "dewar", "--exec-opt", "native.cgroupdriver=cgroupfs"]);
    // Nothing of the host's network is touched.
    command.args([
        "--bridge",
        "none",
        "--iptables=false",
        "--ip6tables=false",
        "--ip-forward=false",
        "--ip-masq=false",
    ]);
    command.env("DEWAR_ENGINE", &docker.host.engine);
    daemon::start(command, &docker.dir, &dir("log"))?;
    docker.ok(&["load", "-q", "-i", &busybox_archive(docker.host)]).map(drop)
}
