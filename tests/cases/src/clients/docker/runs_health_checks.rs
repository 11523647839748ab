//! A health check is a command in the container, which the daemon runs again and again.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(docker: &Engine<'_>) -> Result<()> {
    let mut events = docker.session(&["events", "--filter", "event=health_status", "--format", "{{.Status}}"]).spawn()?;
    let name = docker.sleeper(&["--health-cmd", "echo checked", "--health-interval", "1s"])?;
    let out = events.stdout.take().map(std::io::BufReader::new);
    let first = out.and_then(|out| std::io::BufRead::lines(out).map_while(Result::ok).next());
    events.kill()?;
    events.wait()?;
    ensure!(first.as_deref() == Some("health_status: healthy"), "{first:?}");
    docker.ok(&["rm", "-f", &name])?;
    Ok(())
}
