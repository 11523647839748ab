//! `create`, then `start`: detached, or `-a -i` with the caller's streams and the command's exit code.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let script = "read line; echo got $line; echo oops >&2; exit 4";
    let create = ["create", "-i", "--name", &name, "busybox", "sh", "-c", script];
    let id = host.dewar(&create).finish()?.success()?;
    ensure!(id.trim().len() == 64, "{id}");
    host.dewar(&["exec", &name, "true"]).finish()?.exits(1)?.complains("is not running")?;
    host.dewar(&["attach", &name]).finish()?.exits(1)?.complains("stopped container")?;
    // A stopped container starts as often as one likes.
    for word in ["one", "two"] {
        let started = host.dewar(&["start", "-a", "-i", &name]).input(format!("{word}\n")).finish()?;
        started.exits(4)?;
        ensure!(started.text() == format!("got {word}\n") && started.err == "oops\n", "{started:?}");
    }
    let out = host.dewar(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", &name]).finish()?.success()?;
    ensure!(out == "exited 4\n", "{out}");
    host.dewar(&["start", "-a", &name, "another"]).finish()?.exits(1)?.complains("cannot start and attach multiple")?;
    host.dewar(&["rm", &name]).finish()?.success()?;

    let (first, second) = (host.name(), host.name());
    for name in [&first, &second] {
        host.dewar(&["create", "--name", name, "busybox", "sleep", "1000"]).finish()?.success()?;
    }
    let out = host.dewar(&["start", &first, "no-such-one", &second]).finish()?;
    out.exits(1)?.complains("no-such-one")?;
    ensure!(out.text() == format!("{first}\n{second}\n"), "{}", out.text());
    host.dewar(&["start", &first]).finish()?.success()?;
    host.dewar(&["rm", "-f", &first, &second]).finish()?.success()?;
    Ok(Outcome::Passed)
}
