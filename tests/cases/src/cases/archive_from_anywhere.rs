//! `load` reads a tar, a compressed tar from standard input, and a folder; each gives the same image.

use anyhow::{Result, ensure};

use crate::archive::{Layout, busybox_layer, digest, gzip};
use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let layer = busybox_layer(host)?;
    let name = format!("{}:case", host.name());
    let diff_ids = vec![digest(&layer)];
    let layout = Layout::with_diff_ids(&name, &[gzip(&layer)?], diff_ids)?;
    let dir = tempfile::tempdir()?;
    let loaded = format!("Loaded image: {name}\n");

    let out = host.dewar(&["load"]).input(gzip(&layout.to_tar()?)?).finish()?.success()?;
    ensure!(out == loaded, "{out}");
    let images = ["images", "--no-trunc", "--format", "{{.ID}}", &name];
    let first = host.dewar(&images).finish()?.success()?;
    ensure!(first.starts_with("sha256:") && first.len() == 72, "{first}");
    host.dewar(&["rmi", &name]).finish()?.success()?;

    layout.to_folder(&dir.path().join("folder"))?;
    std::fs::write(dir.path().join("file"), layout.to_tar()?)?;
    for part in ["folder", "file"] {
        let path = dir.path().join(part).display().to_string();
        let out = host.dewar(&["load", "-i", &path]).finish()?.success()?;
        ensure!(out == loaded, "{part}: {out}");
        ensure!(host.dewar(&images).finish()?.success()? == first, "{part} gives another image");
        let out = host.dewar(&["run", "--rm", &name, "echo", part]).finish()?.success()?;
        ensure!(out.trim() == part, "{out}");
        host.dewar(&["rmi", &name]).finish()?.success()?;
    }
    ensure!(host.dewar(&images).finish()?.success()?.is_empty());
    Ok(Outcome::Passed)
}
