//! `run -it` is a terminal of the person's size, which follows it, and takes Ctrl-C.

use anyhow::Result;

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let mut terminal = engine.terminal(&engine.run_args(&["--rm", "-it"], &["sh"]))?;
    terminal.expect("# ")?;
    terminal.type_text("tty; stty size; echo rea''dy\n")?;
    terminal.expect("/dev/pts/0")?;
    terminal.expect("30 100")?;
    terminal.expect("ready")?;
    terminal.expect("# ")?;
    terminal.resize(40, 120)?;
    terminal.type_text("until stty size | grep '40 120'; do sleep 1; done; echo resi''zed\n")?;
    terminal.expect("resized")?;
    terminal.expect("# ")?;
    terminal.type_text("echo slee''ping; sleep 1000\n")?;
    terminal.expect("sleeping")?;
    terminal.type_text("\x03")?;
    terminal.expect("# ")?;
    terminal.type_text("echo wo''ken; exit 5\n")?;
    terminal.expect("woken")?;
    let (_, code) = terminal.finish()?;
    anyhow::ensure!(code == 5, "exit code {code}");
    Ok(())
}
