//! The distribution's packages that building and testing need.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{Outcome, Step};

/// Debian 12's names, each with what needs it.
const PACKAGES: [(&str, &str); 13] = [
    ("gcc", "linking, the guest kernel"),
    ("libc6-dev", "linking, the static agent"),
    ("make", "the guest kernel"),
    ("flex", "the guest kernel"),
    ("bison", "the guest kernel"),
    ("bc", "the guest kernel"),
    ("xz-utils", "unpacking the kernel's source"),
    ("libelf-dev", "objtool of the guest kernel"),
    ("linux-source-6.1", "the guest kernel's source"),
    ("busybox-static", "the default image"),
    ("e2fsprogs", "the writable disk"),
    ("erofs-utils", "checking layers in tests"),
    ("qemu-system-x86", "the QEMU engine"),
];

/// What the lab's image is made with.
const LAB_PACKAGES: [(&str, &str); 3] =
    [("mmdebstrap", "the lab's userland"), ("kmod", "the lab's modules"), ("binutils", "stripping the lab's modules")];

/// What tests check themselves against; without them they would be skipped.
const TEST_PACKAGES: [(&str, &str); 4] = [
    ("docker-registry", "pulling from a registry on the loopback"),
    ("skopeo", "filling that registry"),
    ("attr", "comparing extended attributes of layers"),
    ("acl", "comparing access control lists of layers"),
];

/// What drives `dewar-oci` in tests on a host with real KVM; the lab's image has its own. No daemon is among them: docker's
/// and containerd's cases run where these are there already.
const CLIENT_PACKAGES: [(&str, &str); 5] = [
    ("podman", "running containers as its users do"),
    ("conmon", "podman's containers"),
    ("netavark", "podman, even without networks"),
    ("catatonit", "podman's pods and its init"),
    ("uidmap", "podman's user namespaces"),
];

/// What the workloads' image is made with.
const WORKLOAD_PACKAGES: [(&str, &str); 2] =
    [("mmdebstrap", "the workloads' userland"), ("podman", "the image store that holds it")];

/// Installs what is missing when root; otherwise says what to type.
pub fn install_missing(step: &mut Step) -> Result<Outcome> {
    install(step, &PACKAGES)
}

/// The same for what only the lab needs.
pub fn install_missing_for_lab(step: &mut Step) -> Result<Outcome> {
    install(step, &LAB_PACKAGES)
}

/// The same for what tests check themselves against.
pub fn install_missing_for_tests(step: &mut Step) -> Result<Outcome> {
    install(step, &TEST_PACKAGES)
}

/// The same for the clients that tests run here.
pub fn install_missing_for_clients(step: &mut Step) -> Result<Outcome> {
    install(step, &CLIENT_PACKAGES)
}

/// The same for what only the workloads' image needs.
pub fn install_missing_for_workloads(step: &mut Step) -> Result<Outcome> {
    install(step, &WORKLOAD_PACKAGES)
}

fn install(step: &mut Step, packages: &[(&'static str, &str)]) -> Result<Outcome> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(Outcome::UpToDate);
    }
    if !rustix::process::geteuid().is_root() {
        let reasons: Vec<String> = packages
            .iter()
            .filter(|(name, _)| missing.contains(name))
            .map(|(name, reason)| format!("  {name}: {reason}"))
            .collect();
        bail!(
            "Packages are missing:\n{}\nInstall them with:\n  sudo apt-get install --no-install-recommends -y {}",
            reasons.join("\n"),
            missing.join(" ")
        );
    }
    let mut install = apt_get();
    install.args(["install", "--no-install-recommends", "-y"]).args(&missing);
    if step.command(&mut install).is_ok() {
        return Ok(Outcome::Done);
    }
    // A fresh machine has no package lists, and old lists name files that are gone.
    step.command(apt_get().arg("update"))?;
    step.command(&mut install).context("Failed to install packages")?;
    Ok(Outcome::Done)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn missing(packages: &[(&'static str, &str)]) -> Result<Vec<&'static str>> {
    let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .args(&names)
        .output()
        .with_context(|| {
            format!("Failed to run dpkg-query; on a distribution without it, provide what these packages of Debian 12 hold: {}", names.join(" "))
        })?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&output.stdout)))
}

fn not_installed(packages: &[(&'static str, &str)], listing: &str) -> Vec<&'static str> {
    let installed: Vec<&str> = listing.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().map(|(name, _)| *name).filter(|name| !installed.contains(name)).collect()
}

/// Version of an installed package.
pub fn version(package: &str) -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .output()
        .context("Failed to run dpkg-query")?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || version.is_empty() {
        bail!("The package {package} is not installed");
    }
    Ok(version)
}

/// First line that a tool prints about its version.
pub fn tool_version(tool: &str, flag: &str) -> Result<String> {
    let output = Command::new(tool).arg(flag).output().with_context(|| format!("Failed to run {tool}"))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Where an executable is, by `PATH` and the directories of administrators' tools that users' `PATH` leaves out.
pub fn find_tool(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_owned()))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{name} is not installed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_only_when_it_is_installed() {
        let all: String = PACKAGES.iter().map(|(name, _)| format!("{name} installed\n")).collect();
        assert!(not_installed(&PACKAGES, &all).is_empty());
        let some = all.replace("flex installed", "flex config-files").replace("bc installed\n", "");
        assert_eq!(not_installed(&PACKAGES, &some), ["flex", "bc"]);
    }
}
