//! The harness of the cases that boot a guest.
//!
//! A case is a file with one behaviour: a function that drives the installed `dewar` as a user would, and looks at what
//! comes out. `DEWAR_STAGE` names the installation (default: `target/dewar`), `DEWAR_CASES_ENGINE` the engine (default:
//! auto). All cases share one state root, so that the image is loaded once; names are a case's own. After each case
//! nothing of its containers may be left: no container, process, socket or mount.

/// Cases by file name.
macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        $(mod $name;)+

        /// Every case.
        pub fn all() -> Vec<crate::Case> {
            vec![$(crate::Case { name: stringify!($name), run: $name::run }),+]
        }
    };
}

/// Cases by file name, under a prefix, which get what a function makes of the host.
macro_rules! cases_with {
    ($prefix:literal, $with:ident; $($name:ident),+ $(,)?) => {
        $(mod $name;)+

        /// Every case.
        pub fn all() -> Vec<crate::Case> {
            vec![$(crate::Case { name: concat!($prefix, stringify!($name)), run: |host| $with(host, $name::run) }),+]
        }
    };
}

pub mod archive;
pub mod cases;
pub mod clients;
mod files;
mod processes;
mod pty;
mod session;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Completion, Failed, Trial};

pub use files::{Mounted, files_below, own_stage};
pub use processes::{processes_mentioning, wait_until_gone};
pub use pty::Terminal;
pub use session::{Finished, Session};

/// A behaviour and how to see it.
pub struct Case {
    pub name: &'static str,
    pub run: fn(&Host) -> Result<Outcome>,
}

/// A case that did not fail.
#[derive(Debug)]
pub enum Outcome {
    Passed,
    Skipped(String),
}

/// What a case works with.
#[derive(Debug)]
pub struct Host {
    pub engine: String,
    pub stage: PathBuf,
    pub root: PathBuf,
    case: &'static str,
    serial: AtomicU32,
}

impl Host {
    /// A name for a container that no other case uses.
    pub fn name(&self) -> String {
        format!("{}-{}", self.case.replace('_', "-"), self.serial.fetch_add(1, Ordering::Relaxed))
    }

    /// The same case with a state root of its own, in which there is nothing yet.
    pub fn with_root(&self, root: &Path) -> Self {
        // Far enough from ours that names stay different.
        let serial = AtomicU32::new(self.serial.fetch_add(1000, Ordering::Relaxed));
        let (engine, stage) = (self.engine.clone(), self.stage.clone());
        Self { engine, stage, root: root.to_path_buf(), case: self.case, serial }
    }

    /// The same case with another installation.
    pub fn with_stage(&self, stage: &Path) -> Self {
        Self { stage: stage.to_path_buf(), ..self.with_root(&self.root) }
    }

    /// Checks that nothing of any container is left in a state root that is the case's own: neither processes, nor
    /// sockets, nor files, nor half of an image.
    ///
    /// # Errors
    /// When something is.
    pub fn nothing_left(&self) -> Result<()> {
        wait_until_gone(&processes_mentioning(&self.root.display().to_string()))?;
        let listed = self.dewar(&["ps", "-aq"]).finish()?.success()?;
        ensure!(listed.is_empty(), "containers are left: {listed}");
        // What was found out about the host's KVM is kept, for all containers.
        let kept = [self.root.join("containers/names"), self.root.join("run/probe.json")];
        let mut left: Vec<PathBuf> = ["run", "containers", "images/tmp"]
            .iter()
            .flat_map(|part| files_below(&self.root.join(part)).into_keys())
            .filter(|path| !kept.contains(path))
            .collect();
        left.sort();
        ensure!(left.is_empty(), "files are left: {left:?}");
        Ok(())
    }

    /// Loads an image that the case has made, under a name of its own, and answers the name. The case removes it.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn load(&self, layers: &[Vec<u8>]) -> Result<String> {
        let name = format!("{}:case", self.name());
        let archive = archive::Layout::new(&name, layers)?.to_tar()?;
        self.dewar(&["load", "-q"]).input(archive).finish()?.success()?;
        Ok(name)
    }

    /// `dewar ARGS`, to be run or spawned.
    pub fn dewar(&self, args: &[&str]) -> Session {
        Session::new(self, args)
    }

    /// `dewar run --rm FLAGS busybox COMMAND`, run to its end.
    ///
    /// # Errors
    /// When dewar cannot be started; any exit code is an answer.
    pub fn run(&self, flags: &[&str], command: &[&str]) -> Result<Finished> {
        let args: Vec<&str> = ["run", "--rm"].iter().chain(flags).chain(&["busybox"]).chain(command).copied().collect();
        self.dewar(&args).finish()
    }

    /// The same for `sh -c SCRIPT`; must exit with 0. The answer is what it printed.
    ///
    /// # Errors
    /// When it does not exit with 0.
    pub fn sh(&self, flags: &[&str], script: &str) -> Result<String> {
        self.run(flags, &["sh", "-c", script])?.success()
    }
}

fn shared_root() -> Result<&'static PathBuf> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ROOT.get_or_init(|| make_root().map_err(|e| format!("{e:#}")));
    made.as_ref().map_err(|e| anyhow::anyhow!("{e}"))
}

fn make_root() -> Result<PathBuf> {
    // Unix socket paths are short: so is the root's.
    let root = tempfile::Builder::new().prefix("dw").tempdir()?.keep();
    let context = context("setup", root.clone())?;
    let archive = context.stage.join("lib/dewar/busybox.tar");
    let archive = archive.to_str().context("the stage's path is not UTF-8")?;
    context.dewar(&["load", "-q", "-i", archive]).finish()?.success()?;
    Ok(root)
}

fn context(case: &'static str, root: PathBuf) -> Result<Host> {
    let stage = std::env::var_os("DEWAR_STAGE")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/dewar"), PathBuf::from);
    ensure!(stage.join("bin/dewar").exists(), "{} holds no dewar: run `cargo xtask test`", stage.display());
    let engine = std::env::var("DEWAR_CASES_ENGINE").unwrap_or_else(|_| "auto".into());
    Ok(Host { engine, stage, root, case, serial: AtomicU32::new(0) })
}

/// Runs all cases, as the test runner's arguments say, and exits. `threads`: when they cannot run as the arguments say.
pub fn main(cases: Vec<Case>, threads: Option<usize>) -> ! {
    expect_signals();
    let mut arguments = libtest_mimic::Arguments::from_args();
    // Guests are heavy: as many at a time as there are cores, unless told otherwise.
    let cores = || Some(std::thread::available_parallelism().map_or(1, Into::into));
    arguments.test_threads = threads.or(arguments.test_threads).or_else(cores);
    let trials = cases.into_iter().map(|case| Trial::ignorable_test(case.name, move || run_case(&case))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = clients::end_daemons() {
        eprintln!("{error:#}");
    }
    if let Ok(root) = shared_root() {
        remove_everything(root);
        let _ = std::fs::remove_dir_all(root);
    }
    conclusion.exit()
}

/// Who started this may ignore signals, as shells make their background jobs do, and programs would inherit that.
fn expect_signals() {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the default is a valid action, and no thread that could be ended by it exists yet.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A case that failed may have left machines running under names that nobody chose.
fn remove_everything(root: &Path) {
    let listed = context("end", root.to_path_buf()).and_then(|host| {
        let ids = host.dewar(&["ps", "-a", "-q"]).finish()?.text();
        let args: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.split_whitespace()).collect();
        if args.len() > 2 { host.dewar(&args).finish().map(drop) } else { Ok(()) }
    });
    if let Err(error) = listed {
        eprintln!("cannot clean up {}: {error:#}", root.display());
    }
}

fn run_case(case: &Case) -> Result<Completion, Failed> {
    let context = shared_root().and_then(|root| context(case.name, root.clone())).map_err(show)?;
    let result = (case.run)(&context);
    let clean = clean_up(&context);
    match result.map_err(show)? {
        Outcome::Passed => clean.map_err(show).map(|()| Completion::Completed),
        Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
    }
}

fn show(error: anyhow::Error) -> Failed {
    Failed::from(format!("{error:#}"))
}

/// Nothing of a case may stay. What stays is removed all the same, so that one failure does not become many.
fn clean_up(context: &Host) -> Result<()> {
    let prefix = format!("{}-", context.case.replace('_', "-"));
    let listed = context.dewar(&["ps", "-a", "--format", "{{.Names}}"]).finish()?.success()?;
    let left: Vec<&str> = listed.lines().filter(|name| name.starts_with(&prefix)).collect();
    for name in &left {
        context.dewar(&["rm", "-f", name]).finish()?;
    }
    if !left.is_empty() {
        bail!("the case left containers: {left:?}");
    }
    Ok(())
}
