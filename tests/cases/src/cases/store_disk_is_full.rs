//! A full disk under the store is said to be full, by `load` and by `run`; what was there before still works, and nothing half
//! made stays.

use std::fs;

use anyhow::{Result, ensure};

use crate::archive::{Layer, Layout, busybox_layer};
use crate::{Host, Mounted, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let Some(disk) = Mounted::tmpfs("16m")? else {
        return Ok(Outcome::Skipped("only root can mount a small filesystem".into()));
    };
    let host = host.with_root(disk.path());
    let image = host.load(&[busybox_layer(&host)?])?;
    let before = files_below(disk.path());

    // Bytes that no file system can leave out.
    let noise: Vec<u8> = (0u32..6 << 20).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = Layer::default().file("large", 0o644, &noise)?.finish()?;
    let archive = Layout::new("large:case", &[large])?.to_tar()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("large.tar").display().to_string();
    fs::write(&path, &archive)?;
    host.dewar(&["load", "-q"]).input(archive).finish()?.exits(1)?.complains("No space is left")?;
    host.dewar(&["load", "-q", "-i", &path]).finish()?.exits(1)?.complains("No space is left")?;
    ensure!(files_below(disk.path()) == before, "files are left: {:?}", files_below(disk.path()));

    let filler = disk.path().join("filler");
    // It fills what is left: that it cannot be written whole is the purpose.
    let full = fs::write(&filler, vec![0x5a; 32 << 20]);
    ensure!(full.is_err(), "the disk took 32 MiB");
    let run = host.dewar(&["run", "--rm", &image, "true"]).finish()?;
    run.exits(125)?.complains("o space")?;
    host.nothing_left()?;
    fs::remove_file(&filler)?;
    host.dewar(&["run", "--rm", &image, "true"]).finish()?.success()?;
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
