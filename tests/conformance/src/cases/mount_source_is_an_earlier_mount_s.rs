//! A source inside the root filesystem has what the mounts before it brought there.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let shared = host.folder().join("shared");
    fs::create_dir_all(shared.join("inner"))?;
    fs::write(shared.join("inner/file"), "shared\n")?;
    let mut bundle = host.bundle()?;
    fs::create_dir(bundle.rootfs("tree"))?;
    let (tree, inner) = (bundle.rootfs("tree"), bundle.rootfs("tree/inner"));
    bundle.bind(&shared, "/tree", &[]);
    bundle.push("/mounts", json!({ "destination": "/tree/inner/below", "type": "tmpfs", "source": "tmpfs", "options": ["mode=751"] }));
    // Of these two nothing is to be found on the host, or something else.
    bundle.bind(&inner, "/of-inner", &["ro"]);
    bundle.push("/mounts", json!({ "destination": "/whole", "type": "bind", "source": tree, "options": ["rbind"] }));
    bundle.bind(&bundle.rootfs("tree/inner/file"), "/etc/motd", &[]);
    let out = bundle.sh(
        "cat /of-inner/file /whole/inner/file /etc/motd; stat -c %a /whole/inner/below
         touch /of-inner/new 2>/dev/null || echo read-only; touch /whole/inner/below/new && ls /tree/inner/below",
    )?;
    ensure!(out == "shared\nshared\nshared\n751\nread-only\nnew\n", "{out:?}");
    ensure!(fs::read_dir(&tree)?.count() == 0, "something was made in the root filesystem");
    Ok(())
}
