//! A terminal is given also where `/dev` is a read-only tmpfs.

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Console, Host};

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.set("/process/terminal", json!(true));
    let mounts = bundle.config["mounts"].as_array_mut().context("no mounts")?;
    let dev = mounts.iter_mut().find(|mount| mount["destination"] == "/dev").context("no /dev")?;
    dev["options"] = json!(["nosuid", "mode=755", "size=65536k", "ro"]);
    bundle.script("tty </dev/console; touch /dev/file 2>/dev/null || echo still read-only");
    let console = Console::new(host.folder())?;
    let mut container = bundle.create_with(&["--console-socket", &console.path.display().to_string()])?;
    let mut terminal = console.receive()?;
    container.start()?;
    terminal.says("/dev/console")?;
    terminal.says("still read-only")?;
    container.wait().map(drop)
}
