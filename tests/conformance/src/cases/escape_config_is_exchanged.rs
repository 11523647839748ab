//! What `create` has read counts: a configuration that is another file, or a link, by the time of `start` and `exec`
//! changes nothing.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let secret = host.folder().join("secret");
    fs::write(&secret, "of the host")?;
    bundle.script("echo as created; id -u; cat /given; exec sleep 1000");
    let mut container = bundle.create()?;
    bundle.script("echo exchanged").bind(&secret, "/given", &[]);
    bundle.set("/process/user/uid", json!(1000)).set("/root/path", json!("/"));
    bundle.write()?;
    let file = bundle.path.join("config.json");
    let elsewhere = host.folder().join("elsewhere.json");
    fs::rename(&file, &elsewhere)?;
    symlink(&elsewhere, &file)?;
    container.start()?;
    container.says("as created\n0\n")?;
    ensure!(!container.out().contains("exchanged"), "{}", container.out());
    let seen = container.exec_sh("id -u; cat /given 2>/dev/null || echo none")?;
    ensure!(seen == "0\nnone\n", "{seen:?}");
    container.call(&["delete", "--force"])?.success()?;
    Ok(())
}
