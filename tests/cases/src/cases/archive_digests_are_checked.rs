//! A blob that is not the one its digest names, and a layer that is not the one its image means, are refused.

use std::slice::from_ref;

use anyhow::{Context, Result, ensure};

use crate::archive::{Layer, Layout, digest, gzip};
use crate::{Host, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let root = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(root.path());
    host.dewar(&["load", "-q"]).finish()?.exits(1)?;
    let before = files_below(root.path());
    let layer = Layer::default().file("a", 0o644, b"content")?.finish()?;
    let right = Layout::new("right:case", from_ref(&layer))?;

    // Every blob in turn: the configuration, the layer, the manifest. The length stays.
    for at in 1..=3 {
        let mut wrong = right.clone();
        let (name, bytes) = wrong.files.get_mut(at).context("a blob")?;
        ensure!(name.starts_with("blobs/"), "{name}");
        let middle = bytes.len() / 4;
        bytes[middle] ^= 1;
        let load = host.dewar(&["load", "-q"]).input(wrong.to_tar()?).finish()?;
        load.exits(1)?.complains("damaged or truncated")?;
    }
    for at in 1..=3 {
        let mut wrong = right.clone();
        let (name, _) = wrong.files.remove(at);
        let load = host.dewar(&["load", "-q"]).input(wrong.to_tar()?).finish()?;
        load.exits(1)?.complains("is missing")?.complains(&name)?;
    }
    // The blob is right, and the content another than the configuration says.
    let other = digest(b"something else");
    for blob in [layer.clone(), gzip(&layer)?] {
        let wrong = Layout::with_diff_ids("wrong:case", &[blob], vec![other.clone()])?.to_tar()?;
        host.dewar(&["load", "-q"]).input(wrong).finish()?.exits(1)?.complains(&other)?;
    }
    let wrong = Layout::with_diff_ids("wrong:case", from_ref(&layer), vec![])?.to_tar()?;
    host.dewar(&["load", "-q"]).input(wrong).finish()?.exits(1)?.complains("layers")?;
    ensure!(files_below(root.path()) == before, "files are left: {:?}", files_below(root.path()));

    let out = host.dewar(&["load", "-q"]).input(right.to_tar()?).finish()?.success()?;
    ensure!(out == "Loaded image: right:case\n", "{out}");
    Ok(Outcome::Passed)
}
