//! `kill` takes a signal by name, with and without SIG, and by number; TERM is the default.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script(
        "trap 'echo got usr1' USR1; trap 'echo got usr2' USR2; trap 'echo got hup' HUP; trap 'exit 9' TERM
         echo up; sleep 1000 & while :; do wait; done",
    );
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;
    for (signal, word) in [("SIGUSR1", "got usr1"), ("USR2", "got usr2"), ("1", "got hup")] {
        container.kill(signal)?;
        container.says(word)?;
    }
    container.call(&["kill"])?.success()?;
    let (status, _) = container.wait_status()?;
    ensure!(status == 9, "exited with {status}");
    Ok(())
}
