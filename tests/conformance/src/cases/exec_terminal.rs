//! `exec --tty` gives the process a terminal over the console socket.

use anyhow::Result;

use crate::{Console, Host};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let console = Console::new(host.folder())?;
    let path = console.path.display().to_string();
    let flags = ["--tty", "--detach", "--console-socket", &path];
    container.exec(&flags, &["sh", "-c", "test -t 0 && tty; read x; echo heard $x; read x"])?.success()?;
    let mut terminal = console.receive()?;
    terminal.says("/dev/")?;
    terminal.types("this\n")?;
    terminal.says("heard this")?;
    Ok(())
}
