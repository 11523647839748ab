//! The guest kernel: Debian's source package, unpatched, with our fragment, built once per set of inputs.
//!
//! A build is named by the hash of everything it depends on and lies in the cache as `kernel-<hash>/` with `vmlinux`
//! (ELF, PVH entry), `bzImage` and `config`. It is made beside its final place and renamed, so what is in the cache is
//! complete; a lock keeps two builds from running at once.

pub mod config;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::packages;
use crate::places::Places;
use crate::step::{Outcome, Step, Steps};

const PACKAGE: &str = "linux-source-6.1";
const TARBALL: &str = "/usr/src/linux-source-6.1.tar.xz";
/// The fragment that every build has.
const FRAGMENT: &str = "dewar";
/// Changes when the same inputs would give another product.
const RECIPE: &str = "1";
/// Objects that the build of the plain fragment compiles. Shown as progress, nothing depends on it.
const USUAL_OBJECTS: usize = 1260;
/// What a finished build holds.
const PRODUCTS: [(&str, &str); 3] =
    [("vmlinux", "vmlinux"), ("arch/x86/boot/bzImage", "bzImage"), (".config", "config")];

/// Everything that a build depends on.
#[derive(Debug, Clone)]
pub struct Recipe {
    source: String,
    compiler: String,
    linker: String,
    /// Text of each fragment, in order.
    fragments: Vec<String>,
}

impl Recipe {
    /// The recipe for this tree and machine. `with` names further fragments of `kernel-config/`.
    pub fn here(places: &Places, with: &[String]) -> Result<Self> {
        let fragments = std::iter::once(FRAGMENT)
            .chain(with.iter().map(String::as_str))
            .map(|name| {
                let path = places.root.join(format!("kernel-config/{name}.config"));
                fs::read_to_string(&path).with_context(|| format!("Failed to read the fragment {}", path.display()))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            source: packages::version(PACKAGE)?,
            compiler: packages::tool_version("gcc", "--version")?,
            linker: packages::tool_version("ld", "--version")?,
            fragments,
        })
    }

    /// Where the finished build is, or will be.
    pub fn dir(&self, places: &Places) -> PathBuf {
        let mut hash = Sha256::new();
        for part in [RECIPE, &self.source, &self.compiler, &self.linker].into_iter().chain(self.texts()) {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let key: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        places.cache.join(format!("kernel-{key}"))
    }

    /// Requests that the built configuration does not honour; `None` when there is no build yet.
    pub fn dropped(&self, places: &Places) -> Result<Option<Vec<config::Dropped>>> {
        let path = self.dir(places).join("config");
        if !path.exists() {
            return Ok(None);
        }
        let built = fs::read_to_string(&path).with_context(|| format!("Failed to read {}", path.display()))?;
        Ok(Some(config::dropped(&self.texts().collect::<Vec<_>>(), &built)))
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.fragments.iter().map(String::as_str)
    }
}

/// `cargo xtask kernel`.
pub fn task(places: &Places, with: &[String]) -> Result<()> {
    let mut steps = Steps::new(places, 2)?;
    steps.run("packages", packages::install_missing)?;
    let recipe = Recipe::here(places, with)?;
    steps.run("guest kernel", |step| build(step, places, &recipe))?;
    println!("{}", recipe.dir(places).display());
    Ok(())
}

/// Builds what `recipe` says unless the cache has it.
pub fn build(step: &mut Step, places: &Places, recipe: &Recipe) -> Result<Outcome> {
    let dir = recipe.dir(places);
    if dir.exists() {
        return Ok(Outcome::UpToDate);
    }
    fs::create_dir_all(&places.cache).with_context(|| format!("Failed to create {}", places.cache.display()))?;
    let lock_path = places.cache.join("kernel.lock");
    let lock = File::create(&lock_path).with_context(|| format!("Failed to create {}", lock_path.display()))?;
    lock.lock().with_context(|| format!("Failed to lock {}", lock_path.display()))?;
    if dir.exists() {
        return Ok(Outcome::UpToDate);
    }

    let tree = dir.with_extension("building");
    remove_tree(&tree)?;
    fs::create_dir_all(&tree).with_context(|| format!("Failed to create {}", tree.display()))?;
    let result = build_in(step, recipe, &tree).and_then(|()| collect(&tree, &dir));
    // 2 GB of sources and objects: of no use to anybody after the build, be it a failed one.
    remove_tree(&tree).and(result)?;
    Ok(Outcome::Done)
}

fn remove_tree(tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("Failed to remove {}", tree.display()))?;
    }
    Ok(())
}

fn build_in(step: &mut Step, recipe: &Recipe, tree: &Path) -> Result<()> {
    step.command(Command::new("tar").args(["-xf", TARBALL, "--strip-components=1", "-C"]).arg(tree))?;

    let fragments: Vec<&str> = recipe.texts().collect();
    let wanted = tree.join("dewar-all.config");
    fs::write(&wanted, config::merge(&fragments)).with_context(|| format!("Failed to write {}", wanted.display()))?;
    step.command(make(tree).env("KCONFIG_ALLCONFIG", &wanted).arg("allnoconfig"))?;
    let built = fs::read_to_string(tree.join(".config")).context("Failed to read the resulting .config")?;
    let dropped = config::dropped(&fragments, &built);
    if !dropped.is_empty() {
        let list: Vec<String> = dropped.iter().map(|dropped| format!("  {dropped}")).collect();
        bail!("The kernel's configuration does not honour the fragment:\n{}", list.join("\n"));
    }

    let mut objects = 0_usize;
    let mut command = make(tree);
    step.command_with_progress(command.args(["vmlinux", "bzImage"]), |line| {
        line.starts_with("  CC ").then(|| {
            objects += 1;
            format!("{objects} of about {USUAL_OBJECTS} objects")
        })
    })
}

fn make(tree: &Path) -> Command {
    // One job more than there are processors: `make` itself takes a part of one between two compilers.
    let jobs = thread::available_parallelism().map_or(1, usize::from).saturating_add(1);
    let mut command = Command::new("make");
    command.arg(format!("-j{jobs}")).arg("-C").arg(tree);
    // Three quarters of a compiler's time are headers. Without a record of how each macro was expanded, which only
    // messages would show, they take a tenth less; the code is the same.
    command.env("KCFLAGS", "-ftrack-macro-expansion=0");
    // The same inputs give the same bytes, whoever builds and when.
    command.env("KBUILD_BUILD_TIMESTAMP", "Sat Jan  1 00:00:00 UTC 2022");
    command.env("KBUILD_BUILD_USER", "dewar").env("KBUILD_BUILD_HOST", "dewar").env("KBUILD_BUILD_VERSION", "1");
    command.env("LC_ALL", "C").env_remove("MAKEFLAGS").env_remove("ARCH").env_remove("CROSS_COMPILE");
    command
}

fn collect(tree: &Path, dir: &Path) -> Result<()> {
    let out = tree.join("dewar-out");
    fs::create_dir(&out).with_context(|| format!("Failed to create {}", out.display()))?;
    for (from, to) in PRODUCTS {
        fs::rename(tree.join(from), out.join(to)).with_context(|| format!("The kernel's build made no {from}"))?;
    }
    fs::rename(&out, dir).with_context(|| format!("Failed to create {}", dir.display()))
}
