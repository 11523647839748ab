//! The verbs.

use std::fs;
use std::io::Write;
use std::path::Path;

use dewar_runtime::oci::{self, CreateOptions, Oci, Status, events, spec_template, support};
use dewar_runtime::{Error, ErrorKind, ResultExt};

use crate::cli::{CgroupManager, Cli, Command, Make, OutputFormat};
use crate::log::Log;
use crate::{exec, output};

/// How often `events` asks whether a process was killed for lack of memory.
const GLANCE_MS: u64 = 1000;
/// What a container whose machine does not answer gets to be gone.
const END_MS: u64 = 10_000;

pub fn run(cli: Cli, log: &Log) -> Result<u8, Error> {
    if cli.version {
        print_version();
        return Ok(0);
    }
    let Some(command) = cli.command else {
        return Err(Error::new(ErrorKind::Invalid, "no command is given: see dewar-oci --help"));
    };
    let cgroups = match cli.cgroup_manager {
        Some(CgroupManager::Disabled) => oci::CgroupManager::Disabled,
        Some(CgroupManager::Systemd) => oci::CgroupManager::Systemd,
        _ if cli.systemd_cgroup => oci::CgroupManager::Systemd,
        _ => oci::CgroupManager::Files,
    };
    let oci = Oci::open(cli.root.as_deref(), cgroups)?;
    log.debug(&format!("{command:?}"));
    match command {
        Command::Create(make) => {
            let notice = oci.create(&make.id, &options(&make)?)?;
            notice.into_iter().for_each(|line| log.debug(&line));
            Ok(0)
        }
        Command::Run { make, detach, keep } => {
            let (code, notice) = oci.run(&make.id, &options(&make)?, detach, keep)?;
            notice.into_iter().for_each(|line| log.debug(&line));
            Ok(code)
        }
        Command::Exec(exec) => exec::run(&oci, *exec),
        other => run_simple(&oci, other, log).map(|()| 0),
    }
}

fn run_simple(oci: &Oci, command: Command, log: &Log) -> Result<(), Error> {
    match command {
        Command::Start { id } => oci.start(&id),
        Command::State { id } => print_json(&oci.state(&id)?),
        Command::Kill { all, id, signal } => oci.kill(&id, oci::parse_signal(&signal)?, all),
        Command::Delete { force, id } => oci.delete(&id, force),
        Command::Pause { id } => oci.set_paused(&id, true),
        Command::Resume { id } => oci.set_paused(&id, false),
        Command::Update { id, flags } => oci.update(&id, &flags.resources()?),
        Command::Ps { format, id, options } => {
            if !options.is_empty() {
                log.debug("options of ps are of no effect: the guest's processes are shown in one way");
            }
            if format == OutputFormat::Json {
                // Whoever asks for numbers looks them up on the host: there it is the process that stands for all of them.
                let state = oci.state(&id)?;
                let alive = state.status != Status::Stopped;
                return print_json(&alive.then_some(state.pid).into_iter().collect::<Vec<_>>());
            }
            print(&output::processes(&oci.processes(&id)?))
        }
        Command::Events { interval, stats, id } => print_events(oci, &id, &interval, stats),
        Command::List { format, quiet } => {
            let states = oci.list()?;
            if quiet {
                return print(&states.iter().map(|state| format!("{}\n", state.id)).collect::<String>());
            }
            if format == OutputFormat::Json { print_line(&states) } else { print(&output::list(&states)) }
        }
        Command::Spec { bundle, rootless } => write_spec(&bundle, rootless),
        Command::Features { markdown } => {
            if markdown {
                return print(&support::markdown());
            }
            print_json(&support::features())
        }
        Command::Checkpoint { .. } | Command::Restore { .. } => Err(Error::new(
            ErrorKind::Unsupported,
            "checkpoint and restore are not supported yet: a machine cannot be saved",
        )),
        Command::Create(_) | Command::Run { .. } | Command::Exec(_) => {
            Err(Error::new(ErrorKind::Internal, "the command is of another kind"))
        }
    }
}

fn options(make: &Make) -> Result<CreateOptions, Error> {
    if make.preserve_fds > 0 {
        return Err(no_descriptors());
    }
    Ok(CreateOptions {
        bundle: make.bundle.clone(),
        config: make.config.clone(),
        console_socket: make.console_socket.clone(),
        pid_file: make.pid_file.clone(),
    })
}

pub fn no_descriptors() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "--preserve-fds is not supported: descriptors of the host cannot be passed into a machine",
    )
}

fn print(text: &str) -> Result<(), Error> {
    std::io::stdout().write_all(text.as_bytes()).context(|| "Cannot write to standard output".into())
}

/// JSON in one line, as `list` and `events` have it.
fn print_line(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value).context(|| "Cannot encode the answer".into())?;
    print(&format!("{text}\n"))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).context(|| "Cannot encode the answer".into())?;
    print(&format!("{text}\n"))
}

fn print_version() {
    println!("dewar-oci version {}", env!("CARGO_PKG_VERSION"));
    println!("spec: {}", support::SPEC_VERSION);
}

fn write_spec(bundle: &Path, rootless: bool) -> Result<(), Error> {
    let path = bundle.join("config.json");
    let text = serde_json::to_string_pretty(&spec_template::template(rootless)).context(|| "Cannot encode".into())?;
    let failed = || format!("Cannot write {}", path.display());
    let file = fs::File::options().write(true).create_new(true).open(&path);
    if file.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AlreadyExists) {
        let text = format!("file {} exists. Remove it first", path.display());
        return Err(Error::new(ErrorKind::Conflict, text));
    }
    file.context(failed)?.write_all(format!("{text}\n").as_bytes()).context(failed)
}

/// Counters until the container ends, and in between what it was killed for lack of memory; then nothing more.
fn print_events(oci: &Oci, id: &str, interval: &str, once: bool) -> Result<(), Error> {
    let interval = oci::parse_duration_ms(interval)?;
    let mut stats = oci.stats(id)?;
    print_line(&events::stats_event(id, &stats))?;
    let mut left = interval;
    if once {
        return Ok(());
    }
    loop {
        let step = left.min(GLANCE_MS);
        if has_ended(oci, id, step)? {
            return Ok(());
        }
        let kills = stats.oom_kills;
        stats = match oci.stats(id) {
            // It ends just now: the machine goes before the process that stands for the container.
            Err(_) if has_ended(oci, id, END_MS)? => return Ok(()),
            stats => stats?,
        };
        if stats.oom_kills > kills {
            print_line(&events::oom_event(id))?;
        }
        left -= step;
        if left == 0 {
            print_line(&events::stats_event(id, &stats))?;
            left = interval;
        }
    }
}

/// Whether a container ends within so many milliseconds; one that is deleted has ended.
fn has_ended(oci: &Oci, id: &str, milliseconds: u64) -> Result<bool, Error> {
    match oci.wait_end(id, milliseconds) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        ended => ended,
    }
}
