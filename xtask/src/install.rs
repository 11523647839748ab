//! `cargo xtask install`: copies the staged prefix to another place.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::files;
use crate::places::Places;
use crate::stage;
use crate::step::{Outcome, Steps};

/// Builds what is out of date and copies it to `prefix`. The installed programs find their files relative to themselves.
pub fn install(places: &Places, prefix: &Path) -> Result<()> {
    let mut steps = Steps::new(places, stage::STEPS + 1)?;
    stage::stage(&mut steps, places)?;
    steps.run("install", |_| {
        let copied =
            copy_dir(&places.bin(), &prefix.join("bin"))? | copy_dir(&places.lib(), &prefix.join("lib/dewar"))?;
        Ok(if copied { Outcome::Done } else { Outcome::UpToDate })
    })?;
    println!("{}", prefix.join("bin/dewar").display());
    Ok(())
}

fn copy_dir(from: &Path, to: &Path) -> Result<bool> {
    let mut copied = false;
    let entries = fs::read_dir(from).with_context(|| format!("Failed to list {}", from.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("Failed to list {}", from.display()))?;
        copied |= files::copy_if_changed(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(copied)
}
