//! Names in archives and layers that lead out of them, by `..`, from the root or through links, reach nothing of the host.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::archive::{Layer, Layout, busybox_layer};
use crate::{Host, Outcome, files_below};

pub fn run(host: &Host) -> Result<Outcome> {
    let outside = tempfile::Builder::new().prefix("dw").tempdir()?;
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "[]")?;
    let root = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(root.path());
    let (there, secret) = (outside.path().display().to_string(), secret.display().to_string());
    host.dewar(&["load", "-q"]).finish()?.exits(1)?;
    let before = files_below(root.path());

    let refused: [(Layer, &str); 8] = [
        (Layer::default().file("../escaped", 0o644, b"x")?, "\"..\""),
        (Layer::default().file("a/../../escaped", 0o644, b"x")?, "\"..\""),
        (Layer::default().file("/../escaped", 0o644, b"x")?, "\"..\""),
        (Layer::default().symlink("way", &there)?.file("way/escaped", 0o644, b"x")?, "not a directory"),
        (Layer::default().symlink("way", "..")?.directory("way/escaped", 0o755)?, "not a directory"),
        (Layer::default().hard_link("way", &secret)?, "hard link"),
        (Layer::default().hard_link("way", "../../etc/passwd")?, "\"..\""),
        (Layer::default().file("..", 0o644, b"x")?, "\"..\""),
    ];
    for (layer, sentence) in refused {
        let archive = Layout::new("refused:case", &[layer.finish()?])?.to_tar()?;
        host.dewar(&["load", "-q"]).input(archive).finish()?.exits(1)?.complains(sentence)?;
    }
    refused_members(&host, &secret)?;
    refused_folder(&host, Path::new(&secret))?;
    ensure!(files_below(root.path()) == before, "files are left: {:?}", files_below(root.path()));

    // From the root means from the container's.
    let name = format!("{there}/made");
    let layer = Layer::default().file(&name, 0o644, b"inside\n")?.symlink("out", &there)?.finish()?;
    let image = host.load(&[busybox_layer(&host)?, layer])?;
    let script = format!("cat {name}; echo more > /out/more; cat {there}/more");
    let out = host.dewar(&["run", "--rm", &image, "sh", "-c", &script]).finish()?.success()?;
    ensure!(out == "inside\nmore\n", "{out}");
    ensure!(files_below(outside.path()).len() == 1, "{:?}", files_below(outside.path()));
    host.nothing_left()?;
    Ok(Outcome::Passed)
}

/// The archive's own members: names that a manifest asks for, and links among them.
fn refused_members(host: &Host, secret: &str) -> Result<()> {
    let manifest = |config: &str| format!(r#"[{{"Config":{config:?},"RepoTags":["x:y"],"Layers":[]}}]"#);
    for config in [secret, "../../../../../../etc/passwd", "link"] {
        let archive = Layer::default().file("manifest.json", 0o644, manifest(config).as_bytes())?;
        let archive = archive.symlink("link", secret)?.finish()?;
        host.dewar(&["load", "-q"]).input(archive).finish()?.exits(1)?.complains("is missing")?;
    }
    let archive = Layer::default().symlink("manifest.json", secret)?.finish()?;
    host.dewar(&["load", "-q"]).input(archive).finish()?.exits(1)?.complains("neither an OCI layout")?;
    Ok(())
}

/// A folder is looked into beneath itself only.
fn refused_folder(host: &Host, secret: &Path) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let path = dir.path().display().to_string();
    symlink(secret, dir.path().join("manifest.json"))?;
    host.dewar(&["load", "-q", "-i", &path]).finish()?.exits(1)?.complains("manifest.json")?;
    Ok(())
}
