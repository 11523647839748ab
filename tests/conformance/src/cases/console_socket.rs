//! The terminal comes over the console socket: both ways, and it is the process's.

use anyhow::Result;
use serde_json::json;

use crate::{Console, Host};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/terminal", json!(true));
    bundle.script("test -t 0 && test -t 1 && test -t 2 && tty; read line; echo you said $line");
    let console = Console::new(host.folder())?;
    let mut container = bundle.create_with(&["--console-socket", &console.path.display().to_string()])?;
    let mut terminal = console.receive()?;
    container.start()?;
    terminal.says("/dev/")?;
    terminal.types("hello\n")?;
    terminal.says("you said hello")?;
    container.wait().map(drop)
}
