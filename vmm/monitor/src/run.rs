//! Runs one machine: starts it, then waits in one thread for its end, a signal or a control request.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Context;
use dewar_machine::{EarlyVm, Machine, Phases, last_lines};
use dewar_vmm_api::{Ending, MachineConfig};
use rustix::event::{PollFd, PollFlags, poll};

use crate::RunArguments;
use crate::control::Control;
use crate::descriptor;

/// Lines of the console in an error report.
const REPORTED_LINES: usize = 20;
/// A configuration is a few hundred bytes.
const MAX_CONFIG: u64 = 1 << 20;

pub fn run(arguments: &RunArguments, mut phases: Phases) -> anyhow::Result<Ending> {
    // First of all, so that every thread inherits the mask.
    let signals = descriptor::block_signals().context("Could not set up signals")?;
    let early = EarlyVm::begin()?;
    let ending_fd = arguments.ending_fd.map(descriptor::take).transpose()?;
    let config = read_config(&arguments.config)?;
    phases.done("config");
    let control = config.control.as_deref().map(Control::listen).transpose()?;
    let machine = Machine::start(&config, early, arguments.serial_stdout, phases)?;
    if arguments.phases {
        print_phases(&machine);
    }
    wait(&machine, control, &signals)?;
    let (outcome, console) = machine.finish(|outcome| {
        if let Some(mut fd) = ending_fd {
            // Whoever waited is gone: then nobody needs to know.
            drop(fd.write_all(&[outcome.ending.code()]));
        }
    });
    if !matches!(outcome.ending, Ending::PowerOff | Ending::Stopped) {
        eprintln!("dewar-vmm: {}", outcome.sentence());
        eprint!("{}", last_lines(&console, REPORTED_LINES));
    }
    Ok(outcome.ending)
}

fn read_config(path: &Path) -> anyhow::Result<MachineConfig> {
    let named = || format!("Could not read the machine configuration {}", path.display());
    let mut text = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_CONFIG).read_to_end(&mut text).with_context(named)?;
    } else {
        File::open(path).with_context(named)?.take(MAX_CONFIG).read_to_end(&mut text).with_context(named)?;
    }
    serde_json::from_slice(&text).with_context(|| format!("{} is no machine configuration", path.display()))
}

/// Returns when the machine has ended or shall end.
fn wait(machine: &Machine, mut control: Option<Control>, signals: &OwnedFd) -> anyhow::Result<()> {
    let end = descriptor::of_event(machine.end_event());
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(end, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(control) = &control {
            fds.extend(control.descriptors().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        }
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.context("Could not wait for the machine")?,
        };
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        if ready.iter().take(2).any(|ready| *ready) {
            return Ok(());
        }
        if let Some(control) = &mut control
            && control.serve(ready.get(2..).unwrap_or_default(), machine).is_break()
        {
            return Ok(());
        }
    }
}

fn print_phases(machine: &Machine) {
    let mut before = 0;
    for (phase, at) in machine.metrics().phases {
        eprintln!("phase {phase:14} {:9} us (+{})", at / 1000, at.saturating_sub(before) / 1000);
        before = at;
    }
}
