//! The hooks on the host run in the specification's order, each at its moment.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let log = host.folder().join("log");
    let mut bundle = host.bundle()?;
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        bundle.set(&format!("/hooks/{kind}"), hook(&format!("echo {kind} >>{}", log.display())));
    }
    bundle.script("echo up; exec sleep 1000");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    let mut container = bundle.create()?;
    ensure!(read() == "prestart\ncreateRuntime\ncreateContainer\n", "after create: {}", read());
    container.start()?;
    container.says("up")?;
    ensure!(read() == "prestart\ncreateRuntime\ncreateContainer\npoststart\n", "after start: {}", read());
    container.kill("KILL")?;
    container.wait()?;
    container.call(&["delete"])?.success()?;
    let all = "prestart\ncreateRuntime\ncreateContainer\npoststart\npoststop\n";
    ensure!(read() == all, "after delete: {}", read());
    Ok(())
}

/// A hook that runs a script of the host's shell.
fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}
