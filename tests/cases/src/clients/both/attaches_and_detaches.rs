//! `attach` finds the container's terminal, and leaving it by its keys leaves the container alone.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.host.name();
    engine.ok(&engine.run_args(&["-dit", "--name", &name], &["sh"]))?;
    let mut terminal = engine.terminal(&["attach", "--detach-keys", "ctrl-q", &name])?;
    // Attaching shows nothing of before: an empty line brings a prompt.
    terminal.type_text("\n")?;
    terminal.expect("# ")?;
    terminal.type_text("mark=he''re; echo $mark\n")?;
    terminal.expect("here")?;
    terminal.type_text("\x11")?;
    terminal.finish()?;
    let state = engine.ok(&["inspect", "-f", "{{.State.Status}}", &name])?;
    ensure!(state == "running", "{state}");
    let mut terminal = engine.terminal(&["attach", "--detach-keys", "ctrl-q", &name])?;
    terminal.type_text("\n")?;
    terminal.expect("# ")?;
    terminal.type_text("echo still $mark; exit 3\n")?;
    terminal.expect("still here")?;
    terminal.finish()?;
    ensure!(engine.ok(&["wait", &name])? == "3");
    engine.ok(&["rm", &name])?;
    Ok(())
}
