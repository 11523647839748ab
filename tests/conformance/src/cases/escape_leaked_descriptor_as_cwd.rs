//! A working directory below /proc/self/fd leads to nothing of the host.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mark = host.folder().join("only-on-the-host");
    fs::write(&mark, "")?;
    let path = mark.display();
    for number in 3..12 {
        let mut bundle = host.bundle()?;
        bundle.set("/process/cwd", json!(format!("/proc/self/fd/{number}")));
        let (finished, mut container) = bundle.script(&format!("cat ../../../../../..{path} ../..{path} && echo escaped")).try_create(&[])?;
        if finished.code != 0 {
            continue;
        }
        let out = if container.call(&["start"])?.code == 0 { container.wait()? } else { String::new() };
        ensure!(!out.contains("escaped"), "through descriptor {number}: {out}");
    }
    Ok(())
}
