//! Read-only paths can be read and not written, also by root.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    fs::create_dir(bundle.rootfs("fixed"))?;
    fs::write(bundle.rootfs("fixed/file"), "as it was\n")?;
    bundle.push("/linux/readonlyPaths", json!("/fixed"));
    let script = "cat /fixed/file; echo x >/fixed/file; touch /fixed/new; rm /fixed/file; echo 1 >/proc/sys/kernel/msgmax";
    let out = bundle.sh(&format!("{script}; touch /free; true"))?;
    ensure!(out == "as it was\n", "{out:?}");
    ensure!(fs::read_dir(bundle.rootfs("fixed"))?.count() == 1 && bundle.rootfs("free").exists());
    ensure!(fs::read_to_string(bundle.rootfs("fixed/file"))? == "as it was\n");
    Ok(())
}
