//! `inspect` is JSON with docker's names.

use anyhow::{Context, Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let args = ["create", "--name", &name, "-m", "64m", "-e", "A=b", "-l", "k=v", "-h", "box", "busybox", "echo", "x"];
    let id = host.dewar(&args).finish()?.success()?;
    let text = host.dewar(&["inspect", &name]).finish()?.success()?;
    let all: serde_json::Value = serde_json::from_str(&text)?;
    let one = all.get(0).context("an array")?;
    ensure!(one["Id"] == id.trim() && one["Name"] == format!("/{name}"), "{text}");
    ensure!(one["State"]["Status"] == "created" && one["Config"]["Hostname"] == "box", "{text}");
    ensure!(one["Config"]["Labels"]["k"] == "v" && one["HostConfig"]["Memory"] == 64 << 20, "{text}");
    let env = one["Config"]["Env"].as_array().context("Env is an array")?;
    ensure!(env.iter().any(|e| e == "A=b"), "{text}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    host.dewar(&["inspect", "no-such-thing"]).finish()?.exits(1)?.complains("no-such-thing")?;
    Ok(Outcome::Passed)
}
