//! A poststop hook that fails is only complained about: the container is deleted.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/hooks/poststop", hook("exit 3"));
    let mut container = bundle.create()?;
    container.run()?;
    // Whatever it exits with: the container has to be gone, and the other hooks to have run.
    container.call(&["delete"])?;
    container.call(&["state"])?.fails().map(drop)
}

/// A hook that runs a script of the host's shell.
fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}
