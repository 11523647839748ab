//! Where things are: the source tree, the build's output, the staged prefix, the per-user cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Programs of the staged prefix and the package that each is built from.
pub const PROGRAMS: [(&str, &str); 3] =
    [("dewar", "dewar"), ("dewar-supervisor", "dewar-runtime"), ("dewar-vmm", "dewar-vmm")];

/// Directories of one invocation. Nothing is created by making it.
#[derive(Debug, Clone)]
pub struct Places {
    /// The workspace.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The staged prefix: `bin/` and `lib/dewar/`. Programs find `../lib/dewar` from their own path.
    pub stage: PathBuf,
    /// What survives `cargo clean` and is shared between clones: built kernels.
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
