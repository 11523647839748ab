//! The one front door for building, running, testing and measuring: `cargo xtask …`.
//!
//! One file per task. Products are laid out as an installation prefix (see [`places`]), so that what is run from the
//! tree is what `install` installs. A step is skipped when its inputs have not changed; plain `cargo build` and
//! `cargo test` always work without any of this.

mod bench;
mod check;
mod debian;
mod files;
mod install;
pub mod kernel;
mod lab;
mod lines;
mod packages;
pub mod places;
mod run;
mod stage;
mod stamp;
mod step;
mod test;
mod workloads;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use places::Places;

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything that is out of date and run a container that shows both walls; or `dewar ARGS`.
    Run {
        /// Arguments for `dewar`, after `--`: `cargo xtask run -- run --rm busybox ls`.
        #[arg(last = true, value_name = "DEWAR-ARGS")]
        args: Vec<OsString>,
    },
    /// Unit tests, then the cases that boot a guest.
    Test {
        /// Run only cases and unit tests whose name contains this.
        filter: Option<String>,
    },
    /// Formatting, lints, licences, documentation and file lengths.
    Check,
    /// Build the guest kernel; print the directory it is in.
    Kernel {
        /// Add `kernel-config/NAME.config` to the fragment (for instance `lsm`).
        #[arg(long = "with", value_name = "NAME")]
        with: Vec<String>,
    },
    /// Measure starts, memory and throughput in the lab; write docs/benchmarks.md.
    Bench {
        /// Only these tables; the others stay as they are.
        #[arg(value_name = "PART", value_parser = bench::names())]
        parts: Vec<String>,
    },
    /// Run a command (or a shell) in the nested machine that has a true /dev/kvm.
    Lab(lab::LabArgs),
    /// Build the initramfs, the default image and the scratch disk.
    Rootfs,
    /// Build everything and copy it to PREFIX/bin and PREFIX/lib/dewar.
    Install {
        #[arg(long, default_value = "/usr/local")]
        prefix: PathBuf,
    },
}

/// Runs the task named on the command line; prints the error and its causes, once.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    let places = Places::here()?;
    match task {
        Task::Run { args } => run::run(&places, &args).map(|never| match never {}),
        Task::Test { filter } => test::test(&places, filter.as_deref()),
        Task::Check => check::check(&places).map(|()| ExitCode::SUCCESS),
        Task::Kernel { with } => kernel::task(&places, &with).map(|()| ExitCode::SUCCESS),
        Task::Bench { parts } => bench::bench(&places, &parts),
        Task::Lab(args) => lab::task(&places, args),
        Task::Rootfs => stage::rootfs(&places).map(|()| ExitCode::SUCCESS),
        Task::Install { prefix } => install::install(&places, &prefix).map(|()| ExitCode::SUCCESS),
    }
}
