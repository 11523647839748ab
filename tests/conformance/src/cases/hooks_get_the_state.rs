//! Hooks read the container's state from standard input, and have just their own environment.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    let kinds = [("prestart", "creating"), ("createRuntime", "creating"), ("poststart", "running"), ("poststop", "stopped")];
    for (kind, _) in kinds {
        let script = format!("cat >{0}/{kind}; echo \"$WORD|$HOME\" >{0}/{kind}.env", host.folder().display());
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["WORD=given", "PATH=/usr/bin:/bin"] }]);
        bundle.set(&format!("/hooks/{kind}"), hook);
    }
    bundle.script("exec sleep 1000");
    let container = bundle.create()?;
    container.start()?;
    container.call(&["delete", "--force"])?.success()?;
    for (kind, status) in kinds {
        let text = fs::read_to_string(host.folder().join(kind)).with_context(|| format!("{kind} did not run"))?;
        let state: Value = serde_json::from_str(&text).with_context(|| format!("{kind} got {text:?}"))?;
        ensure!(state["id"] == container.id && state["ociVersion"].is_string(), "{kind}: {state}");
        let bundled = state["bundle"].as_str().with_context(|| format!("{kind}: no bundle"))?;
        ensure!(fs::canonicalize(bundled)? == fs::canonicalize(&bundle.path)?, "{kind}: {state}");
        // The first two run while the container is created: 1.0 said "creating", runc says "created" in prestart.
        ensure!(state["status"] == status || status == "creating" && state["status"] == "created", "{kind}: {state}");
        ensure!(kind == "poststop" || state["pid"].as_i64().is_some_and(|pid| pid > 0), "{kind}: {state}");
        let env = fs::read_to_string(host.folder().join(format!("{kind}.env")))?;
        ensure!(env == "given|\n", "{kind} has {env:?}");
    }
    Ok(())
}
