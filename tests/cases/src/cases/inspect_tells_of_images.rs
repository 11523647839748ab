//! `inspect` of an image is JSON with docker's names: id, tags, platform, configuration, layers.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::archive::{busybox_layer, digest};
use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let layer = busybox_layer(host)?;
    let name = host.load(std::slice::from_ref(&layer))?;
    let text = host.dewar(&["inspect", &name]).finish()?.success()?;
    let all: Value = serde_json::from_str(&text)?;
    let one = all.get(0).context("an array")?;
    let id = one["Id"].as_str().context("an id")?;
    ensure!(one["RepoTags"][0] == name && one["Os"] == "linux" && one["Architecture"] == "amd64", "{text}");
    ensure!(one["RootFS"]["Layers"][0] == digest(&layer) && one["Config"]["Cmd"][0] == "sh", "{text}");
    ensure!(one["Config"]["Labels"]["made-by"] == "a case", "{text}");
    let out = host.dewar(&["inspect", "--type", "image", "--format", "{{.Id}}", id]).finish()?.success()?;
    ensure!(out.trim() == id, "{out}");
    host.dewar(&["inspect", "--type", "container", &name]).finish()?.exits(1)?.complains("No such container")?;
    // What is found is printed even when something else is not.
    let both = host.dewar(&["inspect", "--format", "{{.Id}}", &name, "no-such-thing"]).finish()?;
    both.exits(1)?.complains("No such object: no-such-thing")?;
    ensure!(both.text().trim() == id, "{both:?}");
    host.dewar(&["rmi", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
