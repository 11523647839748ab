//! consoleSize is the terminal's size at the start, and a later resize is seen.

use anyhow::Result;
use serde_json::json;

use crate::{Console, Host};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({ "height": 33, "width": 111 }));
    bundle.script("trap 'stty size; exit' WINCH; stty size; sleep 1000 & while :; do wait; done");
    let console = Console::new(host.folder())?;
    let mut container = bundle.create_with(&["--console-socket", &console.path.display().to_string()])?;
    let mut terminal = console.receive()?;
    container.start()?;
    terminal.says("33 111")?;
    let mut size = rustix::termios::tcgetwinsize(&terminal.master)?;
    (size.ws_row, size.ws_col) = (44, 122);
    rustix::termios::tcsetwinsize(&terminal.master, size)?;
    terminal.says("44 122")?;
    container.wait().map(drop)
}
