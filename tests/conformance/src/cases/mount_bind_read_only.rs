//! A read-only bind mount is read and not written.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), "host\n")?;
    let mut bundle = host.bundle()?;
    let script = "cd /mnt; cat file; (echo x >file) 2>/dev/null || echo refused; touch new 2>/dev/null || echo refused";
    let out = bundle.bind(&shared, "/mnt", &["ro"]).sh(script)?;
    ensure!(out == "host\nrefused\nrefused\n", "{out:?}");
    ensure!(fs::read_to_string(shared.join("file"))? == "host\n" && !shared.join("new").exists());
    Ok(())
}
