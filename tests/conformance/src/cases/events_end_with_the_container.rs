//! `events` tells of the container again and again, and ends well when the container is deleted.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};

use crate::Host;
use crate::container::watched;
use crate::streams::Streams;

pub fn run(host: &Host) -> Result<()> {
    host.needs_verb("events")?;
    let mut bundle = host.bundle()?;
    let container = bundle.script("exec sleep 1000").create()?;
    container.start()?;

    let (mut streams, out, err) = Streams::new()?;
    let mut command = Command::new(&host.runtime);
    command.arg("--root").arg(host.state_root()).args(["events", "--interval", "100ms", &container.id]);
    let mut events = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn()?;
    // Our copies of the pipes' other ends go.
    drop(command);
    let process = watched(i32::try_from(events.id())?)?;
    let told_twice = |streams: &Streams| streams.out().iter().filter(|byte| **byte == b'\n').count() >= 2;
    let ended = streams.pump("waiting for two events", process.as_fd(), told_twice)?;
    let err = String::from_utf8_lossy(streams.err()).into_owned();
    ensure!(!ended, "events ended before the container: {err}");
    container.call(&["delete", "--force"])?.success()?;
    streams.pump("waiting for the end of events", process.as_fd(), |_| false)?;
    let (status, err) = (events.wait()?, String::from_utf8_lossy(streams.err()));
    ensure!(status.success() && err.is_empty(), "{status}: {err}");
    for line in String::from_utf8_lossy(streams.out()).lines() {
        ensure!(line.starts_with(&format!(r#"{{"type":"stats","id":"{}","data":{{"#, container.id)), "{line}");
    }
    Ok(())
}
