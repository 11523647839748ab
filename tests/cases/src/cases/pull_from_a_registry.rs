//! `pull`, and `run` of what is not here yet, get an image from a registry; what is not what it should be is refused.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::archive::{Layer, Layout, busybox_layer, digest, gzip};
use crate::{Host, Outcome, files_below};

/// A registry on the loopback device that lives as long as this.
struct Registry {
    child: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn run(host: &Host) -> Result<Outcome> {
    for tool in ["docker-registry", "skopeo"] {
        if Command::new(tool).arg("--version").output().is_err() {
            return Ok(Outcome::Skipped(format!("no {tool}")));
        }
    }
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let host = host.with_root(&dir.path().join("root"));
    let registry = Registry::start(dir.path())?;
    let base = busybox_layer(&host)?;
    let own = Layer::default().file("own", 0o644, b"from afar\n")?.finish()?;
    let (diff_ids, own) = (vec![digest(&base), digest(&own)], gzip(&own)?);
    let layout = Layout::with_diff_ids("pushed:case", &[gzip(&base)?, own.clone()], diff_ids)?;
    registry.push(dir.path(), &layout)?;

    let name = format!("{}/some/image:1", registry.address);
    let out = host.dewar(&["pull", &name]).finish()?.success()?;
    ensure!(out.contains(&format!("Downloaded newer image for {name}")) && out.contains("Digest: sha256:"), "{out}");
    let out = host.dewar(&["pull", "-q", &name]).finish()?.success()?;
    ensure!(out.trim() == name, "{out}");
    let out = host.dewar(&["run", "--rm", &name, "cat", "/own"]).finish()?.success()?;
    ensure!(out == "from afar\n", "{out}");
    host.dewar(&["rmi", &name]).finish()?.success()?;
    let run = host.dewar(&["run", "--rm", &name, "cat", "/own"]).finish()?;
    ensure!(run.success()? == "from afar\n", "only the container's output: {run:?}");
    run.complains(&format!("Unable to find image '{name}' locally"))?;
    host.dewar(&["rmi", &name]).finish()?.success()?;

    let missing = format!("{}/some/image:2", registry.address);
    host.dewar(&["pull", &missing]).finish()?.exits(1)?.complains("does not have")?.complains(&missing)?;
    spoil(dir.path(), &digest(&own))?;
    host.dewar(&["pull", &name]).finish()?.exits(1)?.complains("sha256")?;
    ensure!(host.dewar(&["images", "-q"]).finish()?.success()?.is_empty());
    let layers = files_below(&host.root.join("images/layers"));
    ensure!(layers.is_empty(), "layers are left: {layers:?}");
    host.nothing_left()?;
    Ok(Outcome::Passed)
}

impl Registry {
    fn start(dir: &Path) -> Result<Self> {
        let config = dir.join("registry.yml");
        let storage = dir.join("storage");
        // Port 0: whichever is free; it says which.
        let text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 'localhost:0'}}\n",
            storage.display()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start docker-registry")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut registry = Self { child, address: String::new() };
        let mut lines = BufReader::new(stderr).lines();
        for line in lines.by_ref() {
            let line = line?;
            let Some((_, after)) = line.split_once("listening on ") else { continue };
            let address = after.split(['"', ' ']).next().unwrap_or_default();
            let port = address.rsplit(':').next().unwrap_or_default();
            registry.address = format!("localhost:{port}");
            break;
        }
        ensure!(!registry.address.is_empty(), "docker-registry did not say where it listens");
        // It goes on writing: somebody has to read.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(registry)
    }

    fn push(&self, dir: &Path, layout: &Layout) -> Result<()> {
        let folder = dir.join("pushed");
        layout.to_folder(&folder)?;
        let from = format!("oci:{}:pushed:case", folder.display());
        let to = format!("docker://{}/some/image:1", self.address);
        let flags = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false", &from, &to];
        let output = Command::new("skopeo").args(flags).output()?;
        ensure!(output.status.success(), "skopeo: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

/// Changes a byte of a blob where the registry keeps it.
fn spoil(dir: &Path, digest: &str) -> Result<()> {
    let hex = digest.trim_start_matches("sha256:");
    let blobs = dir.join("storage/docker/registry/v2/blobs/sha256");
    let path = blobs.join(&hex[..2]).join(hex).join("data");
    let mut bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes)?;
    Ok(())
}
