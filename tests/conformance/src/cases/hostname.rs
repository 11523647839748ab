//! `hostname` is the container's, and nobody else's.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let before = rustix::system::uname().nodename().to_owned();
    let mut bundle = host.bundle()?;
    let out = bundle.set("/hostname", json!("a-name.of.its.own")).sh("hostname")?;
    ensure!(out == "a-name.of.its.own\n", "{out:?}");
    ensure!(rustix::system::uname().nodename() == before.as_c_str(), "the host has another name now");
    Ok(())
}
