//! With `--init` a small init is PID 1: it reaps orphans and passes signals and the exit code on.

use anyhow::{Result, ensure};

use crate::{Host, Outcome};

pub fn run(host: &Host) -> Result<Outcome> {
    let out = host.sh(&["--init"], "echo $$; (sleep 0.1 &) ; (sleep 0.1 &); sleep 0.5; ps -o stat,args | grep -c '^Z' ; exit 0")?;
    let lines: Vec<&str> = out.lines().collect();
    ensure!(lines[0] != "1" && lines[1] == "0", "{out}");
    host.run(&["--init"], &["sh", "-c", "exit 9"])?.exits(9)?;
    host.run(&["--init"], &["sh", "-c", "kill -9 $$"])?.exits(137)?;
    Ok(Outcome::Passed)
}
