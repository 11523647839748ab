//! A masked and a read-only path that somebody keeps exchanging for a link to the host change nothing there, whenever the
//! runtime looks.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::Host;

const ROUNDS: usize = 4;

pub fn run(host: &Host) -> Result<()> {
    let outside = host.folder().join("outside");
    fs::create_dir(&outside)?;
    fs::write(outside.join("file"), "as it was")?;
    for list in ["maskedPaths", "readonlyPaths"] {
        let mut bundle = host.bundle()?;
        fs::create_dir(bundle.rootfs("folder"))?;
        symlink(&outside, bundle.rootfs("link"))?;
        bundle.push(&format!("/linux/{list}"), json!("/folder")).script("echo inside");
        let over = AtomicBool::new(false);
        let finished = std::thread::scope(|scope| {
            scope.spawn(|| exchange(&bundle.rootfs("folder"), &bundle.rootfs("link"), &over));
            let finished: Result<Vec<_>> = (0..ROUNDS).map(|_| bundle.run()).collect();
            over.store(true, Ordering::Relaxed);
            finished
        })?;
        for finished in finished {
            ensure!(finished.code != 0 || finished.text() == "inside\n", "{finished:?}");
        }
        ensure!(fs::read_to_string(outside.join("file"))? == "as it was", "the host's file is hidden");
        fs::write(outside.join("new"), "").context("the host's folder is read-only now")?;
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let outside = outside.to_string_lossy();
        ensure!(!mounts.contains(&*outside), "something is mounted on the host's folder: {mounts}");
    }
    Ok(())
}

/// Exchanges two names until it is over.
fn exchange(one: &Path, other: &Path, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        // A moment in which one is busy is one exchange less.
        let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
    }
}
