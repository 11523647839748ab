//! `delete --force` ends a container whose cgroup somebody else has frozen.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::container::{wait_for_end, watched};
use crate::{Host, skip};

pub fn run(host: &Host) -> Result<()> {
    let name = host.id();
    let mut bundle = host.bundle()?;
    bundle.set("/linux/cgroupsPath", json!(format!("/{name}")));
    let container = bundle.script("exec sleep 1000").create()?;
    container.start()?;
    let files = [("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"), ("/sys/fs/cgroup", "cgroup.freeze", "1")];
    let file = |(hierarchy, file, _): (&str, &str, &str)| Path::new(hierarchy).join(&name).join(file);
    let Some(found) = files.into_iter().find(|files| file(*files).exists()) else {
        return skip("no cgroup with a freezer");
    };
    let process = watched(container.pid)?;
    fs::write(file(found), found.2)?;
    container.call(&["delete", "--force"])?.success()?;
    wait_for_end(&process)?;
    ensure!(!file(found).exists(), "the group is left");
    Ok(())
}
