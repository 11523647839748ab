//! A kernel file that is missing, empty, truncated or no kernel is a clear sentence, and nothing is left.

use anyhow::Result;

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let vmlinux = std::fs::read(host.stage.join("lib/dewar/vmlinux"))?;
    std::fs::write(path("empty"), b"")?;
    std::fs::write(path("garbage"), vec![0x5a; 100_000])?;
    std::fs::write(path("truncated"), &vmlinux[..vmlinux.len() / 3])?;
    host.run(&["--kernel", &path("missing")], &["true"])?.exits(125)?.complains("missing")?;
    for name in ["empty", "garbage", "truncated"] {
        host.run(&["--kernel", &path(name)], &["true"])?.exits(125)?.complains("kernel")?;
    }
    Ok(Outcome::Passed)
}
