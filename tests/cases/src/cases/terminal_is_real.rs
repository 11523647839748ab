//! `-t` gives a real terminal: its size, a change of its size, Ctrl-C, and the exit code at the end.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, Terminal};

pub fn run(host: &Host) -> Result<Outcome> {
    let command = host.dewar(&["run", "--rm", "-it", "busybox", "sh"]).command();
    let mut terminal = Terminal::start(command, 33, 77)?;
    terminal.expect("# ")?;
    terminal.type_text("tty; stty size\n")?;
    terminal.expect("/dev/pts/0")?;
    terminal.expect("33 77")?;
    terminal.resize(44, 88)?;
    terminal.type_text("trap 'stty size' WINCH; until stty size | grep -q '44 88'; do sleep 0.1; done; echo got it\n")?;
    terminal.expect("\ngot it")?;
    terminal.type_text("echo up; sleep 1000\n")?;
    terminal.expect("\nup")?;
    terminal.type_text("\u{3}")?;
    terminal.expect("# ")?;
    terminal.type_text("exit 6\n")?;
    let (_, code) = terminal.finish()?;
    ensure!(code == 6, "exit code {code}");
    // Without a terminal on this side, -t is refused as docker does.
    host.dewar(&["run", "--rm", "-it", "busybox", "true"]).finish()?.complains("TTY")?;
    Ok(Outcome::Passed)
}
