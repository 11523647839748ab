//! `exec` by number does not care what the workload made of /etc/passwd.

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    container.exec_sh("echo 'root:x:0:0::/:/bin/evil' >/etc/passwd; ln -sf /proc/self/exe /etc/group; rm -rf /home")?;
    let out = container.exec(&["--user", "1000:1000"], &["id", "-u"])?.success()?;
    ensure!(out == "1000\n", "{out:?}");
    container.exec_sh("rm -rf /etc; ln -s / /etc")?;
    ensure!(container.exec(&["--user", "1000:1000"], &["id", "-u"])?.success()? == "1000\n");
    Ok(())
}
