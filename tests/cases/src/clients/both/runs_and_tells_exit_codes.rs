//! A command runs on a kernel of its own, and its exit code is the engine's.

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let release = engine.sh(&[], "uname -r")?;
    let host = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(release != host.trim(), "the host's kernel: {release}");
    engine.run(&["--rm"], &["sh", "-c", "exit 7"])?.exits(7)?;
    engine.run(&["--rm"], &["sh", "-c", "sleep 1000 & kill -9 $!; wait $!"])?.exits(137)?;
    engine.run(&["--rm"], &["no-such-command"])?.exits(127)?.complains("no-such-command")?;
    engine.run(&["--rm"], &["/etc/passwd"])?.exits(126)?;
    let args = engine.run_args(&["--rm", "-i"], &["cat"]);
    let echoed = engine.session(&args).input("through\nand through").finish()?.success()?;
    ensure!(echoed == "through\nand through", "{echoed:?}");
    Ok(())
}
