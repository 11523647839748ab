//! `exec` runs beside the container's command: its exit code, user, directory, environment, input and terminal.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.sleeper(&["-e", "FROM=run"])?;
    engine.any(&["exec", &name, "sh", "-c", "exit 9"])?.exits(9)?;
    engine.any(&["exec", &name, "no-such-command"])?.exits(engine.kind.exec_unknown)?;
    engine.any(&["exec", &name, "/etc/passwd"])?.exits(126)?;
    let script = "echo $(id -u):$(id -g) $PWD $FROM $MORE";
    let told = engine.ok(&["exec", "-u", "12:34", "-w", "/tmp", "-e", "MORE=exec", &name, "sh", "-c", script])?;
    ensure!(told == "12:34 /tmp run exec", "{told}");
    let echoed = engine.session(&["exec", "-i", &name, "cat"]).input("through").finish()?.success()?;
    ensure!(echoed == "through", "{echoed:?}");
    let seen = engine.ok(&["exec", &name, "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline"])?;
    ensure!(seen.starts_with("sleep 1000"), "another container's processes: {seen}");

    let mut terminal = engine.terminal(&["exec", "-it", &name, "sh"])?;
    terminal.expect("# ")?;
    // docker tells the size a moment after the start.
    terminal.type_text("until stty size | grep '30 100'; do sleep 1; done; echo do''ne\n")?;
    terminal.expect("done")?;
    terminal.type_text("exit 4\n")?;
    let (_, code) = terminal.finish()?;
    ensure!(code == 4, "exit code {code}");
    engine.ok(&["rm", "-f", &name])?;
    Ok(())
}
