//! When the VMM is killed the run ends with a clear sentence and leaves nothing.

use anyhow::{Result, ensure};

use crate::{Host, Outcome, processes_mentioning, wait_until_gone};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let id = host.dewar(&["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).finish()?.success()?;
    let run_dir = host.root.join("run").join(&id[..16]);
    let supervisors = processes_mentioning(&format!("dewar-supervisor\0{}", id.trim()));
    let all = processes_mentioning(&run_dir.display().to_string());
    let vmm = children_of(&supervisors);
    ensure!(!vmm.is_empty(), "no VMM below {supervisors:?}");
    for pid in &vmm {
        // SAFETY: kill takes two numbers; the process is this case's own.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    host.dewar(&["wait", &name]).finish()?;
    wait_until_gone(&[supervisors, all, vmm].concat())?;
    let out = host.dewar(&["inspect", "--format", "{{json .}}", &name]).finish()?.success()?;
    ensure!(out.contains("signal 9"), "{out}");
    ensure!(!run_dir.exists(), "{} is still there", run_dir.display());
    host.dewar(&["rm", &name]).finish()?.success()?;
    Ok(Outcome::Passed)
}

fn children_of(parents: &[i32]) -> Vec<i32> {
    let children = |pid: &i32| {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<i32>>()
    };
    parents.iter().flat_map(children).collect()
}
