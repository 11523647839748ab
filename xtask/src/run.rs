//! `cargo xtask run`: from a fresh clone to a command in a container in a microVM.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::stage;
use crate::stamp::Stamp;
use crate::step::{Outcome, Step, Steps};

const IMAGE: &str = "busybox";
/// Shows both walls from the inside: the guest's kernel, then the container's namespaces, limits and root.
const TOUR: &str = include_str!("tour.sh");

/// Brings everything up to date, then becomes `dewar`.
pub fn run(places: &Places, args: &[OsString]) -> Result<Infallible> {
    let mut steps = Steps::new(places, stage::STEPS + 1)?;
    stage::stage(&mut steps, places)?;
    steps.run("load image", |step| load_image(step, places))?;

    let mut command = dewar(places);
    if args.is_empty() {
        eprintln!("\nThe host's kernel: {}", rustix::system::uname().release().to_string_lossy());
        command.args(["run", "--rm", "-m", "256m", "--cpus", "1", "--pids-limit", "64", IMAGE, "sh", "-c", TOUR]);
    } else {
        command.args(args);
    }
    Err(command.exec()).context("Failed to execute dewar")
}

fn dewar(places: &Places) -> Command {
    Command::new(places.bin().join("dewar"))
}

/// Loads the default image when the store lacks it or has one made from another archive.
fn load_image(step: &mut Step, places: &Places) -> Result<Outcome> {
    let archive = places.lib().join("busybox.tar");
    // The stamp's product is not a file of the prefix but an entry of the user's store.
    let loaded = places.stamps().join("image-in-store");
    let stamp = Stamp::new("1").file(&archive)?;
    if stamp.matches(places, &loaded) && store_has_image(places)? {
        return Ok(Outcome::UpToDate);
    }
    step.command(dewar(places).arg("load").arg("-i").arg(&archive))?;
    stamp.record(places, &loaded)?;
    Ok(Outcome::Done)
}

fn store_has_image(places: &Places) -> Result<bool> {
    let output = dewar(places).arg("images").output().context("Failed to run dewar")?;
    if !output.status.success() {
        bail!("`dewar images` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(lists_image(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether a table of repositories and tags has ours, with or without the default registry in front.
fn lists_image(table: &str) -> bool {
    table.lines().any(|line| {
        let mut columns = line.split_whitespace();
        let repository = columns.next().unwrap_or_default();
        let bare = repository.strip_prefix("docker.io/library/").unwrap_or(repository);
        bare == IMAGE && columns.next() == Some("latest")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_by_repository_and_tag() {
        let header = "REPOSITORY   TAG      IMAGE ID\n";
        assert!(lists_image(&format!("{header}busybox   latest   1234\n")));
        assert!(lists_image(&format!("{header}docker.io/library/busybox   latest   1234\n")));
        assert!(!lists_image(&format!("{header}busybox   1.0   1234\nmy/busybox latest 12\n")));
        assert!(!lists_image(header));
    }
}
