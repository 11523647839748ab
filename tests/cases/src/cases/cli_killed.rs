//! Killing `run -it` ends neither the container nor what it needs: it runs on, can be asked, and goes away as any other.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, Terminal};

pub fn run(host: &Host) -> Result<Outcome> {
    let root = tempfile::Builder::new().prefix("dw").tempdir()?;
    let archive = host.stage.join("lib/dewar/busybox.tar").display().to_string();
    let host = host.with_root(root.path());
    host.dewar(&["load", "-q", "-i", &archive]).finish()?.success()?;
    let name = host.name();
    let command = host.dewar(&["run", "-it", "--rm", "--name", &name, "busybox", "sh"]).command();
    let mut terminal = Terminal::start(command, 24, 80)?;
    terminal.expect("# ")?;
    terminal.type_text("kept=yes; echo rea\"\"dy\n")?;
    terminal.expect("ready")?;
    terminal.child.kill()?;
    terminal.child.wait()?;
    drop(terminal);

    let out = host.dewar(&["ps", "--format", "{{.Names}} {{.State}}"]).finish()?.success()?;
    ensure!(out.trim() == format!("{name} running"), "{out}");
    let out = host.dewar(&["exec", &name, "echo", "still"]).finish()?.success()?;
    ensure!(out == "still\n", "{out}");
    let mut again = Terminal::start(host.dewar(&["attach", &name]).command(), 24, 80)?;
    again.type_text("echo kept=$kept.\n")?;
    again.expect("kept=yes.")?;
    again.child.kill()?;
    again.child.wait()?;
    drop(again);
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    host.nothing_left()?;
    Ok(Outcome::Passed)
}
