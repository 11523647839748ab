//! A root directory below which no socket's name would fit is refused at once, in one sentence, and nothing is made.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::Builder::new().prefix("dw").tempdir()?;
    let fill = |length: usize| dir.path().join("x".repeat(length - dir.path().as_os_str().len() - 1));
    let host = host.with_root(&fill(65));
    for args in [&["run", "--rm", "busybox", "true"][..], &["create", "busybox"]] {
        host.dewar(args).finish()?.exits(125)?.complains("is too long by 1 bytes")?.complains("choose a shorter one")?;
    }
    host.dewar(&["images"]).finish()?.exits(1)?.complains("is too long by 1 bytes")?;
    ensure!(!host.root.exists(), "it was made");

    let host = host.with_root(&fill(64));
    let archive = host.stage.join("lib/dewar/busybox.tar").display().to_string();
    host.dewar(&["load", "-q", "-i", &archive]).finish()?.success()?;
    host.run(&[], &["true"])?.success()?;
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
