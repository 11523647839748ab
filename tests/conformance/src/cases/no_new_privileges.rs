//! `noNewPrivileges` is what was asked for.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    for wanted in [true, false] {
        let mut bundle = host.bundle()?;
        let out = bundle.set("/process/noNewPrivileges", json!(wanted)).sh("grep NoNewPrivs: /proc/self/status")?;
        ensure!(out.ends_with(if wanted { "\t1\n" } else { "\t0\n" }), "{wanted}: {out:?}");
    }
    Ok(())
}
