//! Ctrl-P Ctrl-Q leaves a container running; `attach` finds it again, with what it remembers.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, Terminal};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let command = host.dewar(&["run", "-it", "--name", &name, "busybox", "sh"]).command();
    let mut terminal = Terminal::start(command, 24, 80)?;
    terminal.expect("# ")?;
    terminal.type_text("kept=yes\n")?;
    terminal.expect("# ")?;
    terminal.type_text("\u{10}\u{11}")?;
    let (_, code) = terminal.finish()?;
    ensure!(code == 0, "detaching exits with {code}");
    let filter = format!("name={name}");
    let out = host.dewar(&["ps", "--filter", &filter, "--format", "{{.State}}"]).finish()?.success()?;
    ensure!(out.trim() == "running", "{out}");
    let mut terminal = Terminal::start(host.dewar(&["attach", &name]).command(), 24, 80)?;
    terminal.type_text("echo kept=$kept; exit 8\n")?;
    terminal.expect("kept=yes")?;
    let (_, code) = terminal.finish()?;
    ensure!(code == 8, "exit code {code}");
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
