//! `stop` asks first, then insists; `kill` does not; `rm` leaves nothing.

use std::io::{BufRead, BufReader};

use anyhow::{Result, ensure};

use super::Engine;

pub fn run(engine: &Engine<'_>) -> Result<()> {
    let name = engine.host.name();
    let script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 1; done";
    let mut session = engine.session(&engine.run_args(&["--name", &name], &["sh", "-c", script])).spawn()?;
    let mut lines = session.stdout.take().map(|out| BufReader::new(out).lines()).into_iter().flatten();
    ensure!(lines.next().transpose()?.as_deref() == Some("ready"));
    engine.any(&["rm", &name])?.exits(engine.kind.rm_refused)?.complains("running")?;
    engine.ok(&["stop", "-t", "60", &name])?;
    ensure!(lines.next().transpose()?.as_deref() == Some("asked"));
    ensure!(session.wait()?.code() == Some(3));
    engine.ok(&["rm", &name])?;

    for (args, code) in [(&["stop", "-t", "1"][..], "137"), (&["kill"][..], "137")] {
        let stubborn = engine.sleeper(&[])?;
        engine.ok(&[args, &[&stubborn]].concat())?;
        let told = engine.ok(&["wait", &stubborn])?;
        ensure!(told == code, "{told}");
        engine.ok(&["rm", &stubborn])?;
    }
    Ok(())
}
