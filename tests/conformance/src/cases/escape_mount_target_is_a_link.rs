//! A mount whose target is a link, or leads through one or through `..`, stays inside the root.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let (outside, source) = (host.folder().join("outside"), host.folder().join("source"));
    fs::create_dir(&outside)?;
    fs::create_dir(&source)?;
    fs::write(source.join("content"), "")?;
    let up = format!("/../../../../../../../..{}", outside.display());
    for (link, target, destination) in [
        ("link", outside.display().to_string(), "/link".to_owned()),
        ("link", outside.display().to_string(), "/link/deeper".to_owned()),
        ("link", up.trim_start_matches('/').to_owned(), "/link".to_owned()),
        ("link", "/proc/self/root".to_owned(), "/link/made-here".to_owned()),
        ("unused", "/".to_owned(), up.clone()),
    ] {
        let mut bundle = host.bundle()?;
        symlink(&target, bundle.rootfs(link))?;
        let finished = bundle.bind(&source, &destination, &[]).script("echo inside").run()?;
        ensure!(finished.code != 0 || finished.text() == "inside\n", "{finished:?}");
        ensure!(fs::read_dir(&outside)?.count() == 0, "{target}: something was made on the host");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&format!(" {} ", outside.display())), "{target}: mounted on the host");
    }
    Ok(())
}
