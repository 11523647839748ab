//! `dewar-oci` next to crun, by hand and through podman, and files over virtio-fs next to the directory that is shared.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::peers::make_bundle;
use crate::start::LIB;
use crate::stopwatch::{command, repeat, time};
use crate::{RUNS, files, report};

const RUNTIMES: [&str; 2] = ["crun", "dewar-oci"];
/// Where the container has this program, and the shared directory.
const PROGRAM: &str = "bin/dewar-bench";
const SHARED: &str = "/shared";

pub fn measure() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/root").context("cannot make a folder")?;
    containers(dir.path())?;
    podman(dir.path())?;
    shared_files(dir.path())
}

fn containers(dir: &Path) -> Result<()> {
    let bundle = dir.join("bundle");
    make_bundle(&bundle, &["/bin/sleep", "1000000"])?;
    // As an image is that was not unpacked this very moment: dewar-fs lets a guest keep what has not changed of late.
    thread::sleep(Duration::from_secs(5));
    let both = |what: &str, once: &dyn Fn(&str) -> Result<f64>| compare(what, "crun", &RUNTIMES, once);
    both("create, start, delete", &|runtime| {
        let mut sum = time(Command::new(runtime).args(["create", "--bundle"]).arg(&bundle).arg("one"))?;
        sum += time(Command::new(runtime).args(["start", "one"]))?;
        Ok(sum + time(Command::new(runtime).args(["delete", "--force", "one"]))?)
    })?;
    // Each its own id: the id names the cgroup, whose device rules would be the other's.
    let id = |runtime: &str| format!("two-{runtime}");
    for runtime in RUNTIMES {
        time(Command::new(runtime).args(["run", "--detach", "--bundle"]).arg(&bundle).arg(id(runtime)))?;
    }
    both("exec true", &|runtime| time(Command::new(runtime).args(["exec", &id(runtime), "/bin/true"])))?;
    for runtime in RUNTIMES {
        time(Command::new(runtime).args(["delete", "--force", &id(runtime)]))?;
    }
    Ok(())
}

fn podman(dir: &Path) -> Result<()> {
    let podman = || {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(dir.join("podman")).arg("--runroot").arg(dir.join("podman-run"));
        podman.args(["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        podman
    };
    time(podman().args(["load", "-q", "-i"]).arg(Path::new(LIB).join("busybox.tar")))?;
    compare("podman run --rm", "crun", &RUNTIMES, &|runtime| {
        let path = if runtime == "crun" { "/usr/bin/crun" } else { "/opt/dewar/bin/dewar-oci" };
        time(podman().args(["--runtime", path, "run", "--rm", "--network", "none", "busybox", "true"]))
    })
}

/// The same work by the same program, here and in a container that shares the directory.
fn shared_files(dir: &Path) -> Result<()> {
    let (bundle, shared) = (dir.join("shared-bundle"), dir.join("shared"));
    fs::create_dir_all(&shared).context("cannot make a folder")?;
    make_bundle(&bundle, &["/bin/sleep", "1000000"])?;
    fs::copy("/proc/self/exe", bundle.join("rootfs").join(PROGRAM)).context("cannot copy this program")?;
    let path = bundle.join("config.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&fs::read(&path).context("cannot read a bundle")?)?;
    let mounts = spec["mounts"].as_array_mut().context("a bundle without mounts")?;
    mounts.push(serde_json::json!({"destination": SHARED, "type": "bind", "source": shared, "options": ["bind"]}));
    fs::write(&path, spec.to_string()).context("cannot write a bundle")?;
    files::prepare(&shared)?;
    time(Command::new("dewar-oci").args(["run", "--detach", "--bundle"]).arg(&bundle).arg("files"))?;
    for work in files::WORKS {
        compare(&format!("files: {work}"), "the directory", &["the directory", "virtio-fs"], &|place| {
            let mut command = match place {
                "virtio-fs" => {
                    let mut command = Command::new("dewar-oci");
                    command.args(["exec", "files"]).arg(Path::new("/").join(PROGRAM));
                    command.args(["files", work, SHARED]);
                    command
                }
                _ => {
                    let mut command = Command::new("/proc/self/exe");
                    command.args(["files", work]).arg(&shared);
                    command
                }
            };
            let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{command:?} failed: {error}");
            String::from_utf8_lossy(&output.stdout).trim().parse().context("a measurement without a figure")
        })?;
    }
    time(&mut command("dewar-oci delete --force files")).map(drop)
}

/// Measures each, and the ratio of the others to the first, run by run.
fn compare(what: &str, first: &str, all: &[&str], once: &dyn Fn(&str) -> Result<f64>) -> Result<()> {
    eprintln!("bench: {what}");
    let mut base: Option<Vec<f64>> = None;
    for name in all {
        once(name)?;
        let values = repeat(RUNS, || once(name))?;
        report(&format!("{what}, {name}"), "ms", &values);
        match &base {
            None => base = Some(values),
            Some(base) => {
                let ratios: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
                report(&format!("{what}, {name} / {first}"), "ratio", &ratios);
            }
        }
    }
    Ok(())
}
