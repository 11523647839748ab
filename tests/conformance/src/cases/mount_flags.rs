//! nosuid, nodev, noexec and ro are flags of the mount and hold.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("program"), "#!/bin/sh\necho ran\n")?;
    fs::set_permissions(shared.join("program"), fs::Permissions::from_mode(0o755))?;
    let mut bundle = host.bundle()?;
    bundle.bind(&shared, "/plain", &[]).bind(&shared, "/strict", &["nosuid", "nodev", "noexec", "ro"]);
    let out = bundle.sh("grep ' /strict ' /proc/self/mountinfo; /plain/program; /strict/program 2>/dev/null || echo refused")?;
    let (line, rest) = out.split_once('\n').context("no mount")?;
    let flags: Vec<&str> = line.split(' ').nth(5).context("no flags")?.split(',').collect();
    ensure!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| flags.contains(flag)), "{line}");
    ensure!(rest == "ran\nrefused\n", "{rest:?}");
    Ok(())
}
