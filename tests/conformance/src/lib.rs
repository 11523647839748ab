//! A black-box suite for OCI runtimes: it knows the runtime specification and runc's command line, nothing of Dewar.
//!
//! `OCI_RUNTIME` names the runtime (default: the staged `dewar-oci`). A case is a file with one behaviour: a function that
//! makes a bundle, drives the runtime as an engine would, and looks at what comes out. What the runtime or this host cannot
//! do is skipped with its reason. Nothing waits by sleeping: each wait is a `poll` on a process or a pipe, and bounded.

mod bundle;
pub mod cases;
mod command;
mod console;
mod container;
mod streams;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::{Completion, Failed, Trial};

pub use bundle::Bundle;
pub use command::Finished;
pub use console::Console;
pub use container::Container;

/// A behaviour and how to see it.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Host) -> Result<()>,
}

/// Why a case says nothing about this runtime on this host.
#[derive(Debug)]
pub struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Skip {}

/// Ends a case without a verdict.
///
/// # Errors
/// Always: the reason.
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// What a case works with.
#[derive(Debug)]
pub struct Host {
    runtime: PathBuf,
    /// A folder of the case's own.
    folder: tempfile::TempDir,
    case: &'static str,
    serial: AtomicU32,
}

impl Host {
    fn new(case: &'static str) -> Result<Self> {
        let staged = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/dewar/bin/dewar-oci");
        let runtime = std::env::var_os("OCI_RUNTIME").map_or_else(staged, PathBuf::from);
        // Paths of unix sockets are short: so is the folder's.
        let folder = tempfile::Builder::new().prefix("oci").tempdir().context("cannot make a folder")?;
        Ok(Self { runtime, folder, case, serial: AtomicU32::new(0) })
    }

    /// An id for a container that no other case uses.
    pub fn id(&self) -> String {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        format!("{}-{}-{serial}", self.case.replace('_', "-"), std::process::id())
    }

    /// A folder of the case's own.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the runtime keeps its state.
    pub fn state_root(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// A bundle with a root filesystem of busybox and an ordinary configuration.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn bundle(&self) -> Result<Bundle<'_>> {
        Bundle::new(self, &self.folder().join(format!("b{}", self.serial.fetch_add(1, Ordering::Relaxed))))
    }

    /// `RUNTIME --root STATE ARGS`, run to its end.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time; any exit code is an answer.
    pub fn runtime(&self, args: &[&str]) -> Result<Finished> {
        self.command(args).finish()
    }

    /// The same, to be wired differently.
    pub fn command(&self, args: &[&str]) -> command::Command {
        command::Command::new(&self.runtime, &self.state_root(), args)
    }

    /// Skips the case when the runtime's help does not name a verb.
    ///
    /// # Errors
    /// Then.
    pub fn needs_verb(&self, verb: &str) -> Result<()> {
        let help = self.runtime(&["--help"])?;
        let named = help.text().lines().any(|line| line.split([' ', ',', '\t']).find(|w| !w.is_empty()) == Some(verb));
        if named { Ok(()) } else { skip(format!("the runtime has no `{verb}`")) }
    }

    /// Whether containers run on a kernel of their own: then the host's limits are not theirs.
    ///
    /// # Errors
    /// When no container runs.
    pub fn own_kernel(&self) -> Result<bool> {
        static OWN: OnceLock<Result<bool, String>> = OnceLock::new();
        let ask = || -> Result<bool> {
            let path = "/proc/sys/kernel/random/boot_id";
            Ok(self.bundle()?.sh(&format!("cat {path}"))? != std::fs::read_to_string(path)?)
        };
        OWN.get_or_init(|| ask().map_err(|e| format!("{e:#}"))).clone().map_err(|e| anyhow!("{e}"))
    }

    /// Skips the case when containers share the host's kernel and this host withholds a capability from root.
    ///
    /// # Errors
    /// Then.
    pub fn needs_capability(&self, name: &str, number: u32) -> Result<()> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).context("no CapEff")?;
        let mask = u64::from_str_radix(mask.trim(), 16)?;
        if mask >> number & 1 == 1 || self.own_kernel()? {
            return Ok(());
        }
        skip(format!("root has no {name} here, and the runtime's containers share this kernel"))
    }
}

/// Runs all cases, as the test runner's arguments say, and exits.
pub fn main(cases: Vec<Case>) -> ! {
    // A container's init is an orphan once `create` has returned: it becomes ours, and its exit status can be seen.
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("cannot become a subreaper: {error}");
    }
    let mut arguments = libtest_mimic::Arguments::from_args();
    arguments.test_threads =
        arguments.test_threads.or(Some(std::thread::available_parallelism().map_or(1, Into::into)));
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || run_case(&case))).collect();
    libtest_mimic::run(&arguments, trials).exit()
}

fn run_case(case: &Case) -> Result<Completion, Failed> {
    let outcome = Host::new(case.name).and_then(|host| {
        let result = (case.run)(&host);
        let left = nothing_left(&host);
        result.and(left)
    });
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast_ref::<Skip>() {
            Some(reason) => Ok(Completion::ignored_with(reason.to_string())),
            None => Err(Failed::from(format!("{error:#}"))),
        },
    }
}

/// After its case no container may be known: each was deleted by whoever made it.
fn nothing_left(host: &Host) -> Result<()> {
    if !host.state_root().exists() {
        return Ok(());
    }
    let listed = host.runtime(&["list", "-q"])?.success()?;
    ensure!(listed.trim().is_empty(), "containers are left: {listed}");
    Ok(())
}
