//! `cargo xtask lab`: runs a command in a nested machine that has a true `/dev/kvm`; see tests/lab/README.md.

pub mod groups;
mod image;
mod machine;
mod outcomes;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::places::Places;
use crate::stage;
use crate::step::Steps;

pub use machine::{Disk, Job, Lab};
pub use watch::{Bounds, Passing};

/// Steps that [`prepare`] takes.
pub const STEPS: usize = 2;

/// Options of `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    /// Only build what the lab boots.
    #[arg(long)]
    image_only: bool,
    /// Count instructions instead of time: one instruction is one nanosecond, and a figure repeats. One CPU.
    #[arg(long)]
    deterministic: bool,
    /// CPUs of the lab.
    #[arg(long, default_value_t = 2)]
    smp: u32,
    /// Memory of the lab in MiB.
    #[arg(long, default_value_t = 6144)]
    mem: u32,
    /// Show a host directory, read-only, at /mnt/NAME (default: its base name).
    #[arg(long = "dir", value_name = "PATH[:NAME]")]
    dirs: Vec<String>,
    /// Where /out of the lab lands.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Environment for the command.
    #[arg(long = "env", value_name = "K=V")]
    env: Vec<String>,
    /// Kill the lab when nothing came from it for this many seconds.
    #[arg(long, value_name = "SECONDS")]
    max_silence: Option<u64>,
    /// Kill the lab after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    max_time: Option<u64>,
    /// The command; none: a shell.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Builds the lab's image unless it is there, and answers the lab.
pub fn prepare(steps: &mut Steps, places: &Places) -> Result<Lab> {
    steps.run("lab packages", crate::packages::install_missing_for_lab)?;
    let mut dir = PathBuf::new();
    steps.run("lab image", |step| {
        let (made, outcome) = image::build(step, places)?;
        dir = made;
        Ok(outcome)
    })?;
    Ok(Lab::new(places, dir))
}

/// `cargo xtask lab`.
pub fn task(places: &Places, args: LabArgs) -> Result<ExitCode> {
    if args.image_only {
        return prepare(&mut Steps::new(places, STEPS)?, places).map(|_| ExitCode::SUCCESS);
    }
    let mut steps = Steps::new(places, stage::STEPS + STEPS)?;
    stage::stage(&mut steps, places)?;
    let lab = prepare(&mut steps, places)?;
    let mut disks = vec![Disk { from: places.stage.clone(), at: "/opt/dewar".into() }];
    for dir in &args.dirs {
        let (from, name) = dir.split_once(':').map_or((dir.as_str(), None), |(from, name)| (from, Some(name)));
        let from = std::fs::canonicalize(from)?;
        let name = name.map_or_else(|| from.file_name().unwrap_or_default().to_string_lossy().into_owned(), Into::into);
        disks.push(Disk { from, at: format!("/mnt/{name}") });
    }
    // A year is for ever.
    let seconds = |given: Option<u64>| Duration::from_secs(given.unwrap_or(u64::MAX).min(365 * 24 * 3600));
    let job = Job {
        deterministic: args.deterministic,
        smp: args.smp,
        memory_mib: args.mem,
        disks,
        files: Vec::new(),
        env: args.env,
        command: args.command,
        out: args.out,
        bounds: Bounds { silence: seconds(args.max_silence), total: seconds(args.max_time) },
        passing: Passing::Bytes,
    };
    lab.run(&job).map(|ended| ExitCode::from(ended.code))
}
