//! Mounts are made in the listed order: a later one covers or is inside an earlier one.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir_all(shared.join("inner"))?;
    fs::write(shared.join("inner/file"), "shared\n")?;
    let mut bundle = host.bundle()?;
    let tmpfs = |at: &str| json!({ "destination": at, "type": "tmpfs", "source": "tmpfs" });
    bundle.push("/mounts", tmpfs("/a")).bind(&shared, "/a/shared", &[]).push("/mounts", tmpfs("/a/shared/inner"));
    bundle.bind(&shared, "/b", &[]).push("/mounts", tmpfs("/b"));
    let out = bundle.sh("ls /a; ls /a/shared; ls /a/shared/inner; ls /b; touch /a/shared/inner/x /b/x")?;
    ensure!(out == "shared\ninner\n", "{out:?}");
    ensure!(fs::read_dir(&shared)?.count() == 1 && !shared.join("inner/x").exists());
    Ok(())
}
