//! An image archive that truncated, wherever it does, is said to, and nothing of it stays.

use anyhow::{Result, ensure};

use crate::archive::gzip;
use crate::{Host, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(dir.path());
    let whole = std::fs::read(host.stage.join("lib/dewar/busybox.tar"))?;
    host.dewar(&["load", "-q"]).finish()?.exits(1)?;
    let before = files_below(dir.path());
    let half = whole.len() / 2;
    let compressed = gzip(&whole)?;
    let path = dir.path().join("archive.tar");
    for part in [&whole[..half], &whole[..700_000], &compressed[..compressed.len() / 2]] {
        host.dewar(&["load", "-q"]).input(part).finish()?.exits(1)?.complains("truncated")?;
        std::fs::write(&path, part)?;
        let load = ["load", "-q", "-i", &path.display().to_string()];
        host.dewar(&load).finish()?.exits(1)?.complains("truncated")?.complains("archive.tar")?;
        std::fs::remove_file(&path)?;
    }
    // Between two members nothing is cut in half, but something is missing.
    host.dewar(&["load", "-q"]).input(&whole[..2048]).finish()?.exits(1)?.complains("incomplete")?;
    for nothing in [&b""[..], b"this is no archive", &[0; 10240]] {
        host.dewar(&["load", "-q"]).input(nothing).finish()?.exits(1)?.complains("archive")?;
    }
    ensure!(files_below(dir.path()) == before, "files are left: {:?}", files_below(dir.path()));
    host.dewar(&["load", "-q", "-i", "/nowhere/x.tar"]).finish()?.exits(1)?.complains("/nowhere/x.tar")?;
    Ok(Outcome::Passed)
}
