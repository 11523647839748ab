//! A mount point that is a link to nothing is made where the link points to, inside the root.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let (outside, file) = (host.folder().join("outside"), host.folder().join("file"));
    fs::create_dir(&outside)?;
    fs::write(&file, "of the host\n")?;
    let mut bundle = host.bundle()?;
    let absolute = outside.join("absolute");
    for (link, target) in [
        ("plain", "/made/further/off"),
        ("relative", "../../../made/relative"),
        ("absolute", absolute.to_str().unwrap_or_default()),
    ] {
        symlink(target, bundle.rootfs("etc").join(link))?;
        bundle.bind(&file, &format!("/etc/{link}"), &["ro"]);
    }
    let absolute = absolute.display();
    let out = bundle.sh(&format!(
        "cat /made/further/off /made/relative {absolute}
         grep -c -e ' /made/further/off ' -e ' /made/relative ' -e ' {absolute} ' /proc/self/mounts"
    ))?;
    ensure!(out == format!("{}3\n", "of the host\n".repeat(3)), "{out:?}");
    ensure!(bundle.rootfs("made/relative").is_file() && bundle.rootfs("made/further/off").is_file());
    ensure!(fs::read_dir(&outside)?.count() == 0, "something was made on the host");
    Ok(())
}
