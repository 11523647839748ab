//! `dewar doctor`: what this host can run, one finding a line, each with what to do.

use std::fs;
use std::path::Path;

use crate::engine::{QEMU, probe};
use crate::{Error, Paths};

/// How a finding bears on running containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Good,
    /// Worth knowing; something runs all the same.
    Note,
    Bad,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    pub text: String,
    /// What to do about it; empty when nothing.
    pub advice: String,
}

impl Finding {
    fn new(level: Level, subject: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level, subject, text: text.into(), advice: advice.into() }
    }
}

/// All findings, and whether anything can run.
///
/// # Errors
/// When the prober itself cannot be started.
pub fn examine(paths: &Paths) -> Result<(Vec<Finding>, bool), Error> {
    let mut findings = Vec::new();
    let probe = probe(paths)?;
    findings.push(match (Path::new("/dev/kvm").exists(), probe.is_usable()) {
        (_, true) => Finding::new(Level::Good, "kvm", probe.reason(), ""),
        (true, false) => Finding::new(
            Level::Note,
            "kvm",
            probe.reason(),
            "use a host with hardware virtualization, or enable nested virtualization, for speed",
        ),
        (false, false) => Finding::new(
            Level::Note,
            "kvm",
            probe.reason(),
            "load kvm_intel or kvm_amd, or enable virtualization in the firmware",
        ),
    });
    let qemu = super::engine::qemu_program();
    findings.push(match &qemu {
        Some(path) => Finding::new(Level::Good, "qemu", format!("{} is there", path.display()), ""),
        None => {
            Finding::new(Level::Note, "qemu", format!("{QEMU} is not installed"), "apt-get install qemu-system-x86")
        }
    });
    let mut files_there = true;
    for (subject, name) in [("kernel", "vmlinux"), ("initramfs", "initramfs.cpio"), ("scratch", "scratch.ext4")] {
        findings.push(match paths.lib_file(name) {
            Ok(path) => Finding::new(Level::Good, subject, format!("{} is there", path.display()), ""),
            Err(error) => {
                files_there = false;
                Finding::new(Level::Bad, subject, error.to_string(), "")
            }
        });
    }
    findings.push(cgroups());
    findings.push(Finding::new(
        Level::Good,
        "vsock",
        "served in user space by the engines; the host's kernel needs no vhost_vsock",
        "",
    ));
    let runs = files_there && (probe.is_usable() || qemu.is_some());
    findings.push(match (runs, probe.is_usable()) {
        (true, true) => Finding::new(Level::Good, "engine", "kvm will be used", ""),
        (true, false) => Finding::new(Level::Note, "engine", "qemu will be used: slower, equally isolated", ""),
        _ => Finding::new(Level::Bad, "engine", "nothing can run here", "mend the lines above"),
    });
    Ok((findings, runs))
}

fn cgroups() -> Finding {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let has = |kind: &str| mounts.lines().any(|l| l.split(" - ").nth(1).is_some_and(|r| r.starts_with(kind)));
    let text = match (has("cgroup2 "), has("cgroup ")) {
        (true, false) => "version 2 on this host; containers always see version 2, the guest's own",
        (true, true) => "versions 1 and 2 (hybrid) on this host; containers always see version 2, the guest's own",
        (false, true) => "version 1 on this host; containers always see version 2, the guest's own",
        (false, false) => "none mounted on this host; containers have the guest's own all the same",
    };
    Finding::new(Level::Good, "cgroups", text, "")
}
