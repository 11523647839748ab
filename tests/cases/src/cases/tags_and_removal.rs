//! `tag` and `rmi` as docker has them: names come and go, and what a container needs stays.

use anyhow::{Result, ensure};

use crate::archive::{Layer, busybox_layer};
use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let root = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(root.path());
    let own = Layer::default().file("own", 0o644, host.name().as_bytes())?.finish()?;
    let image = host.load(&[busybox_layer(&host)?, own])?;
    let id = host.dewar(&["images", "-q", "--no-trunc", &image]).finish()?.success()?;
    let id = id.trim();

    host.dewar(&["tag", &image, "other:1"]).finish()?.success()?;
    host.dewar(&["tag", &id[7..19], "other:2"]).finish()?.success()?;
    host.dewar(&["tag", "no-such-image", "x"]).finish()?.exits(1)?.complains("No such image: no-such-image")?;
    host.dewar(&["tag", &image, "Not A Name"]).finish()?.exits(1)?.complains("Not A Name")?;
    let out = host.dewar(&["images", "--format", "{{.Repository}}:{{.Tag}}", "other"]).finish()?.success()?;
    ensure!(out.lines().count() == 2 && out.contains("other:1") && out.contains("other:2"), "{out}");
    let out = host.dewar(&["rmi", "other:1"]).finish()?.success()?;
    ensure!(out == "Untagged: other:1\n", "{out}");
    host.dewar(&["rmi", "other:1"]).finish()?.exits(1)?.complains("No such image: other:1")?;
    host.dewar(&["rmi", id]).finish()?.exits(1)?.complains("several repositories")?;
    host.dewar(&["rmi", &image]).finish()?.success()?;

    let name = host.name();
    host.dewar(&["run", "-d", "--name", &name, "other:2", "sleep", "1000"]).finish()?.success()?;
    for refused in [&["rmi", "other:2"][..], &["rmi", id]] {
        host.dewar(refused).finish()?.exits(1)?.complains(&name)?.complains("running")?;
    }
    host.dewar(&["kill", &name]).finish()?.success()?;
    host.dewar(&["wait", &name]).finish()?.success()?;
    host.dewar(&["rmi", "other:2"]).finish()?.exits(1)?.complains("stopped")?;
    // By force the name goes, and the container still has what it needs.
    let out = host.dewar(&["rmi", "-f", "other:2"]).finish()?.success()?;
    ensure!(out == "Untagged: other:2\n", "{out}");
    host.dewar(&["start", &name]).finish()?.success()?;
    let out = host.dewar(&["exec", &name, "cat", "/own"]).finish()?.success()?;
    ensure!(!out.is_empty());
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    let out = host.dewar(&["rmi", id]).finish()?.success()?;
    ensure!(out == format!("Deleted: {id}\n"), "{out}");
    ensure!(host.dewar(&["images", "-q"]).finish()?.success()?.is_empty());
    let layers = crate::files_below(&root.path().join("images/layers"));
    ensure!(layers.is_empty(), "layers are left: {layers:?}");
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
