//! When the supervisor is killed its machine dies with it, and the next command puts the state right.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, processes_mentioning, wait_until_gone};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let id = host.dewar(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).finish()?.success()?;
    let run_dir = host.root.join("run").join(&id[..16]);
    let supervisors = processes_mentioning(&format!("dewar-supervisor\0{}", id.trim()));
    ensure!(supervisors.len() == 1, "{supervisors:?}");
    let machine = processes_mentioning(&run_dir.display().to_string());
    // SAFETY: kill takes two numbers; the process is this case's own.
    unsafe { libc::kill(supervisors[0], libc::SIGKILL) };
    wait_until_gone(&[supervisors, machine].concat())?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &name]).finish()?.success()?;
    ensure!(out.contains("\"Status\":\"exited\"") && out.contains("supervisor was killed"), "{out}");
    ensure!(!run_dir.exists(), "{} is still there", run_dir.display());
    host.dewar(&["start", &name]).finish()?.success()?;
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}
