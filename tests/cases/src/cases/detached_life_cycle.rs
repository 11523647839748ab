//! `run -d`, `ps`, `wait`, `rm`: a container's life as docker tells it.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let id = host.dewar(&["run", "-d", "--name", &name, "busybox", "sh", "-c", "sleep 1000; exit 5"]).finish()?.success()?;
    ensure!(id.trim().len() == 64, "{id}");
    let filter = format!("name={name}");
    let ps = ["ps", "-a", "--filter", &filter, "--format", "{{.ID}} {{.Image}} {{.State}}"];
    let out = host.dewar(&ps).finish()?.success()?;
    ensure!(out.trim() == format!("{} busybox running", &id[..12]), "{out}");
    host.dewar(&["rm", &name]).finish()?.exits(1)?.complains("running")?;
    host.dewar(&["kill", &name]).finish()?.success()?;
    let out = host.dewar(&["wait", &name]).finish()?.success()?;
    ensure!(out.trim() == "137", "{out}");
    let out = host.dewar(&ps).finish()?.success()?;
    ensure!(out.contains("exited"), "{out}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    host.dewar(&["inspect", &name]).finish()?.exits(1)?;
    Ok(Outcome::Passed)
}
