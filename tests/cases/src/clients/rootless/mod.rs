//! podman of an ordinary user, with `--runtime dewar-oci`.
//!
//! The user exists only in the mount namespaces of its commands, where copies of the files that know users lie over the
//! host's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::engine::{Engine, Kind};
use super::podman::PODMAN;
use super::{Machines, busybox_archive, missing, runtime};
use crate::{Host, Outcome};

cases_with! { "rootless_podman_", with;
    owns_volumes,
    runs_and_stops,
}

const USER: &str = "dewar-case";
/// Of the user, and of its group.
const ID: u32 = 47_110;
/// The first of its other ids.
const SUBORDINATE: u32 = 300_000_000;

const ROOTLESS: Kind = Kind {
    name: "rootless podman",
    programs: &["podman", "conmon", "newuidmap", "setpriv", "unshare"],
    command,
    prepare,
    ..PODMAN
};

/// Hides the host's users, and becomes one.
const BECOME: &str = r#"
etc=$1 id=$2 groups=$3; shift 3
for file in passwd group subuid subgid; do mount --bind "$etc/$file" "/etc/$file" || exit; done
exec setpriv --reuid "$id" --regid "$id" "$groups" --inh-caps=-all env -i "$@"
"#;

/// Runs a case, or says why an ordinary user cannot run machines here.
fn with(host: &Host, case: fn(&Engine<'_>) -> Result<()>) -> Result<Outcome> {
    if let Some(skipped) = missing(ROOTLESS.programs) {
        return Ok(skipped);
    }
    let dir = tempfile::tempdir()?;
    if let Some(reason) = make_user(host, dir.path())? {
        return Ok(Outcome::Skipped(reason));
    }
    let podman = Engine { host, kind: &ROOTLESS, dir: dir.path().to_path_buf() };
    let machines = Machines::now(host);
    let result = prepare(&podman).and_then(|()| case(&podman));
    let clean = podman.clean_up().and_then(|()| machines.nothing_new(host)).and_then(|()| nothing_left(dir.path()));
    end_holder(dir.path())?;
    result?;
    clean?;
    Ok(Outcome::Passed)
}

/// Makes the user and its folders; answers what makes them useless.
fn make_user(host: &Host, dir: &Path) -> Result<Option<String>> {
    let entries = [
        ("passwd", format!("{USER}:x:{ID}:{ID}::{}:/bin/sh\n", dir.join("home").display())),
        ("group", format!("{USER}:x:{ID}:\n")),
        ("subuid", format!("{USER}:{SUBORDINATE}:65536\n")),
        ("subgid", format!("{USER}:{SUBORDINATE}:65536\n")),
    ];
    fs::create_dir(dir.join("etc"))?;
    for (file, entry) in entries {
        let of_host = Path::new("/etc").join(file);
        if !of_host.exists() {
            return Ok(Some(format!("the host has no {}", of_host.display())));
        }
        fs::write(dir.join("etc").join(file), fs::read_to_string(of_host)? + &entry)?;
    }
    for (folder, mode) in [("home", 0o700), ("runtime", 0o700), ("volume", 0o777)] {
        fs::create_dir(dir.join(folder))?;
        fs::set_permissions(dir.join(folder), fs::Permissions::from_mode(mode))?;
        chown(dir.join(folder), Some(ID), Some(ID))?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let mut needs = vec![format!("test -x {}", runtime(host).display()), "unshare --user true".into()];
    if host.engine == "kvm" {
        needs.push("test -r /dev/kvm -a -w /dev/kvm".into());
    }
    for need in needs {
        let tried = become_user(dir).args(["sh", "-c", &need]).output().context("cannot become a user")?;
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr);
            return Ok(Some(format!("`{need}` fails for an ordinary user here: {}", why.trim())));
        }
    }
    Ok(None)
}

/// A command of the user's, to be completed.
fn become_user(dir: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", BECOME, "sh"]).arg(dir.join("etc"));
    // Who may use KVM belongs to its group.
    let kvm = fs::metadata("/dev/kvm").map_or(0, |found| found.gid());
    let groups = if kvm == 0 { "--clear-groups".to_owned() } else { format!("--groups={kvm}") };
    command.arg(ID.to_string()).arg(groups).current_dir("/");
    let path = std::env::var("PATH").unwrap_or_default();
    command.args([format!("PATH={path}"), format!("HOME={}", dir.join("home").display())]);
    command.arg(format!("XDG_RUNTIME_DIR={}", dir.join("runtime").display()));
    command
}

fn command(podman: &Engine<'_>) -> Command {
    let mut command = become_user(&podman.dir);
    command.arg(format!("DEWAR_ENGINE={}", podman.host.engine));
    // Overlays in user namespaces are not every host's.
    command.args(["podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
    command.arg("--runtime").arg(runtime(podman.host));
    command
}

fn prepare(podman: &Engine<'_>) -> Result<()> {
    podman.ok(&["load", "-q", "-i", &busybox_archive(podman.host)]).map(drop)
}

/// Of machines, in the user's own run folder.
fn nothing_left(dir: &Path) -> Result<()> {
    let machines = dir.join("runtime/dewar/oci");
    let left: Vec<_> = fs::read_dir(&machines)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(left.is_empty(), "{left:?} is left in {}", machines.display());
    Ok(())
}

/// Ends the process that podman leaves to hold the user's namespaces.
fn end_holder(dir: &Path) -> Result<()> {
    let file = dir.join("runtime/libpod/tmp/pause.pid");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let pid: i32 = text.trim().parse().with_context(|| format!("{text:?} is no pid"))?;
    // SAFETY: takes two numbers.
    let killed = unsafe { libc::kill(pid, libc::SIGKILL) };
    ensure!(killed == 0, "cannot end process {pid}: {}", std::io::Error::last_os_error());
    Ok(())
}
