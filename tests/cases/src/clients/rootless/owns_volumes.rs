//! On both sides of a volume, root of the container is the user and others are the user's subordinate ids.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use anyhow::{Result, ensure};

use super::{Engine, ID, SUBORDINATE};

pub fn run(podman: &Engine<'_>) -> Result<()> {
    let volume = podman.dir.join("volume");
    fs::write(volume.join("given"), "")?;
    chown(volume.join("given"), Some(SUBORDINATE + 32), Some(SUBORDINATE + 32))?;
    let mount = format!("{}:/v", volume.display());
    let script = "stat -c %u:%g /v /v/given; touch /v/root /v/other; chown 1000:7 /v/other";
    let seen = podman.sh(&["-v", &mount], script)?;
    ensure!(seen == "0:0\n33:33", "{seen}");
    podman.sh(&["-v", &mount, "--user", "1000:1000"], "touch /v/user")?;
    for (file, uid, gid) in [
        ("root", ID, ID),
        ("other", SUBORDINATE + 999, SUBORDINATE + 6),
        ("user", SUBORDINATE + 999, SUBORDINATE + 999),
    ] {
        let made = fs::metadata(volume.join(file))?;
        ensure!((made.uid(), made.gid()) == (uid, gid), "{file} is {}:{}'s", made.uid(), made.gid());
    }
    Ok(())
}
