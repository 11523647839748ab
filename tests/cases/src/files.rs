//! A look at the host's files, and installations that differ in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::Host;

/// Everything below a folder, with its size; what vanishes meanwhile is left out.
pub fn files_below(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), if meta.is_file() { meta.len() } else { 0 });
        }
    }
    found
}

/// An installation in `dir` with the same files as the host's, for a case to spoil.
///
/// # Errors
/// Those of writing files.
pub fn own_stage(host: &Host, dir: &Path) -> Result<Host> {
    for part in ["bin", "lib/dewar"] {
        let (from, to) = (host.stage.join(part), dir.join(part));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            // The programs find the rest beside themselves, so they have to be here; of the rest a name is enough.
            if part == "bin" {
                link_or_copy(&entry.path(), &to.join(entry.file_name()))?;
            } else {
                std::os::unix::fs::symlink(fs::canonicalize(entry.path())?, to.join(entry.file_name()))?;
            }
        }
    }
    Ok(host.with_stage(dir))
}

/// A further name for a file, or a copy where that cannot be.
///
/// # Errors
/// Those of copying.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
    }
    Ok(())
}
