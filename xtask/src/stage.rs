//! Lays everything out as an installation prefix: `bin/` and `lib/dewar/`.

use std::env;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::files;
use crate::kernel::{self, Recipe};
use crate::packages;
use crate::places::{PROGRAMS, Places, Program};
use crate::stamp::Stamp;
use crate::step::{Outcome, Step, Steps, cargo_progress};

/// Number of steps that [`stage`] takes.
pub const STEPS: usize = 7;
const ROOTFS_STEPS: usize = 5;
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Static and at fixed addresses: PID 1 of a guest that has no loader, with no relocations to apply at its start.
const AGENT_RUSTFLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Brings the whole prefix up to date.
pub fn stage(steps: &mut Steps, places: &Places) -> Result<()> {
    steps.run("packages", packages::install_missing)?;
    steps.run("guest kernel", |step| stage_kernel(step, places))?;
    stage_rootfs(steps, places)?;
    steps.run("programs", |step| stage_programs(step, places)).map(|_| ())
}

/// `cargo xtask rootfs`.
pub fn rootfs(places: &Places) -> Result<()> {
    let mut steps = Steps::new(places, ROOTFS_STEPS)?;
    steps.run("packages", packages::install_missing)?;
    stage_rootfs(&mut steps, places)?;
    println!("{}", places.lib().display());
    Ok(())
}

fn stage_rootfs(steps: &mut Steps, places: &Places) -> Result<()> {
    steps.run("agent", |step| build_agent(step, places))?;
    steps.run("initramfs", |_| stage_initramfs(places))?;
    steps.run("default image", |_| stage_image(places))?;
    steps.run("scratch disk", |step| stage_scratch(step, places)).map(|_| ())
}

fn stage_kernel(step: &mut Step, places: &Places) -> Result<Outcome> {
    let recipe = Recipe::here(places, &[])?;
    let outcome = kernel::build(step, places, &recipe)?;
    let built = recipe.dir(places).join("vmlinux");
    let product = places.lib().join("vmlinux");
    let stamp = Stamp::new("1").file(&built)?.file(&places.root.join("rootfs/src/vmlinux.rs"))?;
    if stamp.matches(places, &product) {
        return Ok(outcome);
    }
    let elf = fs::read(&built).with_context(|| format!("Failed to read {}", built.display()))?;
    files::replace(&product, |file| {
        let mut out = BufWriter::new(file);
        dewar_rootfs::vmlinux::write_without_padding(&elf, &mut out)?;
        out.flush()
    })?;
    stamp.record(places, &product)?;
    Ok(Outcome::Done)
}

/// `cargo`, as the outer one found itself, in the workspace and free of what `cargo run` set for xtask.
pub fn cargo(places: &Places) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let of_xtask =
            name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_"));
        if of_xtask || name == "CARGO_MANIFEST_DIR" || name == "CARGO_MANIFEST_PATH" {
            command.env_remove(name);
        }
    }
    command.current_dir(&places.root);
    command
}

fn agent_path(places: &Places) -> PathBuf {
    places.target.join("agent").join(TARGET).join("release/dewar-agent")
}

fn build_agent(step: &mut Step, places: &Places) -> Result<Outcome> {
    let agent = agent_path(places);
    let before = modified(&agent);
    // Its own target directory: other flags in the same one would rebuild the world at every turn.
    let mut command = cargo(places);
    command.args(["build", "--release", "--package", "dewar-agent", "--target", TARGET, "--target-dir"]);
    command
        .arg(places.target.join("agent"))
        .env("RUSTFLAGS", AGENT_RUSTFLAGS)
        // Every byte of it is copied twice at each start.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    step.command_with_progress(&mut command, cargo_progress())?;
    Ok(if before.is_some() && before == modified(&agent) { Outcome::UpToDate } else { Outcome::Done })
}

fn stage_initramfs(places: &Places) -> Result<Outcome> {
    let agent = agent_path(places);
    let product = places.lib().join("initramfs.cpio");
    let stamp = Stamp::new("1").file(&agent)?;
    if stamp.matches(places, &product) {
        return Ok(Outcome::UpToDate);
    }
    let binary = fs::read(&agent).with_context(|| format!("Failed to read {}", agent.display()))?;
    if !is_static(&binary) {
        bail!("{} is not a static executable: the initramfs holds no loader for it", agent.display());
    }
    files::replace(&product, |file| {
        dewar_rootfs::initramfs::write(&binary, BufWriter::new(file))?.into_inner().map(|_| ()).map_err(Into::into)
    })?;
    stamp.record(places, &product)?;
    Ok(Outcome::Done)
}

/// Whether an x86-64 ELF executable asks for no program interpreter.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| -> Option<u64> {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let interpreters = || -> Option<usize> {
        let table = usize::try_from(number(32, 8)?).ok()?;
        let size = usize::try_from(number(54, 2)?).ok()?;
        let count = usize::try_from(number(56, 2)?).ok()?;
        let kinds: Option<Vec<u64>> = (0..count).map(|index| number(table + index * size, 4)).collect();
        Some(kinds?.into_iter().filter(|kind| *kind == u64::from(PT_INTERP)).count())
    };
    elf.starts_with(b"\x7fELF\x02\x01") && interpreters() == Some(0)
}

fn stage_image(places: &Places) -> Result<Outcome> {
    let busybox = packages::find_tool("busybox")?;
    let product = places.lib().join("busybox.tar");
    let stamp = Stamp::new(env!("CARGO_PKG_VERSION"))
        .file(&busybox)?
        .file(&places.root.join("rootfs/src/busybox.rs"))?
        .file(&places.root.join("rootfs/src/oci.rs"))?
        .file(&places.root.join("rootfs/busybox/passwd"))?
        .file(&places.root.join("rootfs/busybox/group"))?;
    if stamp.matches(places, &product) {
        return Ok(Outcome::UpToDate);
    }
    let binary = fs::read(&busybox).with_context(|| format!("Failed to read {}", busybox.display()))?;
    if !is_static(&binary) {
        bail!("{} is not static; install busybox-static", busybox.display());
    }
    let listing = Command::new(&busybox).arg("--list-full").output().context("Failed to run busybox")?;
    let mtime = fs::metadata(&busybox).context("Failed to look at busybox")?.mtime();
    let applets = String::from_utf8(listing.stdout).context("Busybox lists its applets in a strange encoding")?;
    files::replace(&product, |file| {
        let out = BufWriter::new(file);
        let out = dewar_rootfs::busybox::write(&binary, &applets, mtime.unsigned_abs(), out)?;
        out.into_inner().map(|_| ()).map_err(Into::into)
    })?;
    stamp.record(places, &product)?;
    Ok(Outcome::Done)
}

fn stage_scratch(step: &mut Step, places: &Places) -> Result<Outcome> {
    let mke2fs = packages::find_tool("mke2fs")?;
    let product = places.lib().join("scratch.ext4");
    let stamp = Stamp::new("1").file(&mke2fs)?.file(&places.root.join("rootfs/src/scratch.rs"))?;
    if stamp.matches(places, &product) {
        return Ok(Outcome::UpToDate);
    }
    let partial = files::partial_name(&product);
    fs::create_dir_all(places.lib()).context("Failed to create the staged prefix")?;
    let file = fs::File::create(&partial).with_context(|| format!("Failed to create {}", partial.display()))?;
    file.set_len(dewar_rootfs::scratch::SIZE).with_context(|| format!("Failed to size {}", partial.display()))?;
    step.command(&mut dewar_rootfs::scratch::format_command(&mke2fs, &partial))?;
    fs::rename(&partial, &product).with_context(|| format!("Failed to create {}", product.display()))?;
    stamp.record(places, &product)?;
    Ok(Outcome::Done)
}

fn stage_programs(step: &mut Step, places: &Places) -> Result<Outcome> {
    let mut outcome = Outcome::UpToDate;
    for program in PROGRAMS {
        let built = build_program(step, places, &program)?;
        if files::copy_if_changed(&built, &places.bin().join(program.name))? {
            outcome = Outcome::Done;
        }
    }
    Ok(outcome)
}

/// Builds a program at fixed addresses, with no relocations to apply at each start; a static one has no loader to wait for
/// either. Only the program itself is linked statically or not: what it is made of is compiled once for all of them.
pub fn build_program(step: &mut Step, places: &Places, program: &Program) -> Result<PathBuf> {
    let dir = places.target.join("programs");
    let mut command = cargo(places);
    command.args(["rustc", "--release", "--package", program.package, "--bin", program.name]);
    command.args(["--target", TARGET, "--target-dir"]).arg(&dir);
    command.env("RUSTFLAGS", "-C relocation-model=static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    if program.is_static {
        command.args(["--", "-C", "target-feature=+crt-static"]);
    }
    step.command_with_progress(&mut command, cargo_progress())?;
    Ok(dir.join(TARGET).join("release").join(program.name))
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_executable_is_told_from_a_static_one() {
        // The header of an ELF file with one program header of the given type.
        let elf = |kind: u32| {
            let mut bytes = vec![0; 64 + 56];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            bytes[32] = 64;
            bytes[54] = 56;
            bytes[56] = 1;
            bytes[64..68].copy_from_slice(&kind.to_le_bytes());
            bytes
        };
        assert!(is_static(&elf(1)));
        assert!(!is_static(&elf(3)));
        assert!(!is_static(&elf(1)[..60]));
        assert!(!is_static(b"#!/bin/sh"));
    }
}
