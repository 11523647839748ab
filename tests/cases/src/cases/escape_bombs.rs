//! Bombs of processes, files and memory go off inside: the machine answers, the host is unharmed, limits are told.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let name = host.name();
    let fork = "f() { f | f & }; f; exec sleep 1000";
    host.dewar(&["run", "-d", "--pids-limit", "64", "--name", &name, "busybox", "sh", "-c", fork]).finish()?.success()?;
    let told = host.dewar(&["stats", "--no-stream", "--format", "{{.PIDs}}", &name]).finish()?.success()?;
    ensure!(told.trim().parse::<u32>().is_ok_and(|pids| (1..=64).contains(&pids)), "{told:?}");
    host.dewar(&["rm", "-f", &name]).finish()?.success()?;

    let files = "mkdir /d; i=0; while true >/d/$i; do i=$((i + 1)); done; rm -r /d && echo survived";
    let finished = host.run(&["--storage-opt", "size=32m"], &["sh", "-c", files])?;
    ensure!(finished.success()? == "survived\n" && finished.err.contains("No space left"), "{finished:?}");

    let memory = host.run(&["-m", "32m"], &["sh", "-c", "tail /dev/zero; echo $?"])?;
    ensure!(memory.success()? == "137\n", "{memory:?}");
    Ok(Outcome::Passed)
}
