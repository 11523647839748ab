//! Where things are: the source tree, the build's output, the staged prefix, the per-user cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A program and the package that it is built from.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    pub name: &'static str,
    pub package: &'static str,
    /// Starts faster. Not for what resolves host names: a static C library would load the host's resolver plug-ins, which
    /// have to be of exactly its own version.
    pub is_static: bool,
}

/// Programs of the staged prefix.
pub const PROGRAMS: [Program; 5] = [
    Program { name: "dewar", package: "dewar", is_static: false },
    Program { name: "dewar-fs", package: "dewar-fs", is_static: true },
    Program { name: "dewar-oci", package: "dewar-oci", is_static: true },
    Program { name: "dewar-supervisor", package: "dewar-runtime", is_static: true },
    Program { name: "dewar-vmm", package: "dewar-vmm", is_static: true },
];

/// Directories of one invocation. Nothing is created by making it.
#[derive(Debug, Clone)]
pub struct Places {
    /// The workspace.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The staged prefix: `bin/` and `lib/dewar/`. Programs find `../lib/dewar` from their own path.
    pub stage: PathBuf,
    /// What survives `cargo clean` and is shared between clones: built kernels, images of Debian packages.
    pub cache: PathBuf,
}

impl Places {
    pub fn here() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not inside a workspace")?.to_owned();
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        let cache = env::var_os("XDG_CACHE_HOME")
            .filter(|dir| !dir.is_empty())
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cache")))
            .context("Neither XDG_CACHE_HOME nor HOME is set: no place for the kernel cache")?
            .join("dewar");
        Ok(Self { stage: target.join("dewar"), root, target, cache })
    }

    /// `lib/dewar` of the staged prefix.
    pub fn lib(&self) -> PathBuf {
        self.stage.join("lib/dewar")
    }

    /// `bin` of the staged prefix.
    pub fn bin(&self) -> PathBuf {
        self.stage.join("bin")
    }

    /// Full output of every step's last run.
    pub fn logs(&self) -> PathBuf {
        self.target.join("xtask/logs")
    }

    /// Descriptions of the inputs that the products were made from.
    pub fn stamps(&self) -> PathBuf {
        self.target.join("xtask/stamps")
    }
}
