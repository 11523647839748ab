//! Whether `/dev/kvm` can run a guest, asked of `dewar-vmm probe` once per boot of the host.
//!
//! The device's existence proves nothing: there are hosts whose KVM emulates ring 0. The verdict on that is a fact of the
//! host and is cached with the boot's id; whether this user may open the device is asked anew each time.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use dewar_vmm_api::ProbeVerdict;
use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Paths, ResultExt};

/// Bytes of a verdict.
const MAX_VERDICT: u64 = 64 << 10;

/// The finding.
#[derive(Debug, Clone)]
pub struct Probe {
    pub verdict: ProbeVerdict,
}

impl Probe {
    #[must_use]
    pub fn is_usable(&self) -> bool {
        matches!(self.verdict, ProbeVerdict::Real { .. })
    }

    /// A clause for messages.
    #[must_use]
    pub fn reason(&self) -> String {
        match &self.verdict {
            ProbeVerdict::Real { ns_per_instruction } => {
                format!("/dev/kvm runs ring 0 on hardware ({ns_per_instruction} per instruction)")
            }
            ProbeVerdict::Emulated { ns_per_instruction: Some(ns), .. } => {
                format!("/dev/kvm here emulates the guest's ring 0 ({ns} per instruction) and cannot run a kernel")
            }
            ProbeVerdict::Emulated { detail, .. } => {
                format!("/dev/kvm here emulates the guest's ring 0 and cannot run a kernel ({detail})")
            }
            ProbeVerdict::Missing { .. } => "there is no /dev/kvm (no hardware virtualization)".into(),
            ProbeVerdict::NoPermission { .. } => {
                "no permission to open /dev/kvm (join its group: `usermod -aG kvm $USER`, then log in again)".into()
            }
            ProbeVerdict::Failed { detail } => format!("/dev/kvm does not work: {detail}"),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Cached {
    boot: String,
    verdict: ProbeVerdict,
}

/// Probes, or remembers.
///
/// # Errors
/// When the prober cannot be run; what it finds wrong with KVM is a [`Probe`], not an error.
pub fn probe(paths: &Paths) -> Result<Probe, Error> {
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        let detail = error.to_string();
        let verdict = match error.kind() {
            std::io::ErrorKind::NotFound => ProbeVerdict::Missing { detail },
            std::io::ErrorKind::PermissionDenied => ProbeVerdict::NoPermission { detail },
            _ => ProbeVerdict::Failed { detail },
        };
        return Ok(Probe { verdict });
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let cache = paths.run.join("probe.json");
    if let Ok(Cached { boot: then, verdict }) = fs::read(&cache).map_err(drop).and_then(|t| parse(&t))
        && then == boot
        && !boot.is_empty()
    {
        return Ok(Probe { verdict });
    }
    let program = paths.bin.join("dewar-vmm");
    let verdict = ask(&program)?;
    if matches!(verdict, ProbeVerdict::Real { .. } | ProbeVerdict::Emulated { .. }) {
        // Without a cache the next start probes again: slower by a few milliseconds, not wrong.
        if let Ok(text) = serde_json::to_vec(&Cached { boot, verdict: verdict.clone() }) {
            let fresh = paths.run.join(format!("probe.json.{}", std::process::id()));
            let _ = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &cache));
        }
    }
    Ok(Probe { verdict })
}

/// The prober answers in one line and then ends, which takes it some tens of milliseconds that nobody here waits for.
fn ask(program: &Path) -> Result<ProbeVerdict, Error> {
    let failed = || format!("Cannot run {} probe", program.display());
    let mut command = Command::new(program);
    command.arg("probe").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().kind(ErrorKind::Machine, failed)?;
    let mut line = Vec::new();
    let read = child.stdout.take().map(|out| BufReader::new(out.take(MAX_VERDICT)).read_until(b'\n', &mut line));
    let reaper = std::thread::Builder::new().name("probe".into());
    reaper.spawn(move || child.wait()).kind(ErrorKind::Machine, failed)?;
    read.transpose().kind(ErrorKind::Machine, failed)?;
    serde_json::from_slice(&line).kind(ErrorKind::Machine, || format!("{} probe gave no verdict", program.display()))
}

fn parse(text: &[u8]) -> Result<Cached, ()> {
    serde_json::from_slice(text).map_err(drop)
}
