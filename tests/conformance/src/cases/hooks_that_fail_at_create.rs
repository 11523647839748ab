//! A hook that fails before the start makes `create` fail and leaves nothing.

use anyhow::Result;
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = host.bundle()?;
        bundle.set(&format!("/hooks/{kind}"), hook("exit 3"));
        bundle.is_refused()?;
    }
    Ok(())
}

/// A hook that runs a script of the host's shell.
fn hook(script: &str) -> Value {
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}
