//! The image of Debian packages that workloads run in, made once: `store/` (an image store of podman's with the image
//! `debian`, which others read) and `packages/` (files for apt-get in a container without a network).
//!
//! A store, not an archive: to load hundreds of megabytes takes minutes in the lab, to look into a store nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::{self, RELEASE};
use crate::packages;
use crate::places::Places;
use crate::step::{Step, Steps};

/// Change it when the same inputs would give another image.
const RECIPE: &str = "1";
const PACKAGES: [&str; 8] =
    ["curl", "gcc", "libc6-dev", "nginx-light", "postgresql", "python3", "redis-server", "sqlite3"];
/// A program and what it needs that is not in the image.
const OFFERED: [&str; 3] = ["jq", "libjq1", "libonig5"];
/// Large, and of no use without locales, a just-in-time compiler in the database, link-time optimization and sanitizers.
const LEFT_OUT: [&str; 9] = [
    "/usr/share/i18n/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/gcc/*/*/lto1",
    "/usr/bin/*lto-dump*",
    "/usr/lib/*/lib?san.*",
    "/usr/lib/gcc/*/*/lib?san.*",
];

/// Makes the image unless it is in the cache; answers its folder.
pub fn prepare(places: &Places) -> Result<PathBuf> {
    ensure!(rustix::process::geteuid().is_root(), "The workloads' image keeps its files' owners: run this as root");
    let mut steps = Steps::new(places, 2)?;
    steps.run("workload packages", packages::install_missing_for_workloads)?;
    let inputs = [RECIPE, RELEASE, &PACKAGES.join(" "), &OFFERED.join(" "), &LEFT_OUT.join(" ")].join("\n");
    let mut dir = PathBuf::new();
    steps.run("workload image", |step| {
        let (made, outcome) = debian::folder(places, "workloads", &inputs, |work| make(step, work))?;
        dir = made;
        Ok(outcome)
    })?;
    Ok(dir)
}

fn make(step: &mut Step, work: &Path) -> Result<()> {
    let offered = work.join("packages");
    fs::create_dir(&offered).with_context(|| format!("Failed to create {}", offered.display()))?;
    let root = work.join("root.tar");
    let mut mmdebstrap = debian::mmdebstrap(&PACKAGES);
    mmdebstrap.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    // A case makes a database of its own.
    mmdebstrap.arg("--customize-hook=chroot \"$1\" sh -c 'set -- $(pg_lsclusters -h) && pg_dropcluster \"$1\" \"$2\"'");
    let download = format!("APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get download -q {}", OFFERED.join(" "));
    mmdebstrap.arg(format!("--customize-hook=cd \"$DEWAR_OFFERED\" && {download}")).env("DEWAR_OFFERED", &offered);
    step.command_with_progress(mmdebstrap.arg(RELEASE).arg(&root), |line| Some(line.chars().take(60).collect()))?;
    // podman wants a short path.
    let run = tempfile::tempdir().context("Failed to make a folder")?;
    let mut podman = Command::new("podman");
    podman.arg("--root").arg(work.join("store")).arg("--runroot").arg(run.path());
    podman.args(["--storage-driver", "overlay", "import", "-q", "--change", "CMD bash"]).arg(&root).arg("debian");
    step.command(&mut podman)?;
    fs::remove_file(&root).with_context(|| format!("Failed to remove {}", root.display()))
}
