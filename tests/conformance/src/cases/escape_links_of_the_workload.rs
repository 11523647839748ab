//! Links that the workload makes are followed in its own root, not on the host.

use std::fs;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let secret = host.folder().join("secret");
    fs::write(&secret, "of the host")?;
    let path = secret.display();
    let out = container.exec_sh(&format!("ln -s {path} /a; ln -s ../../../../../../..{path} /b; cat /a /b 2>&1; true"))?;
    ensure!(!out.contains("of the host"), "{out}");
    let out = container.exec_sh(&format!("ls /../../../../../..{} 2>/dev/null; ls /proc/1/root{path} 2>/dev/null; true", path))?;
    ensure!(out.is_empty(), "{out}");
    Ok(())
}
