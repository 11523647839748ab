//! `ctr run --rm`: output, input, exit code, limits and mounts.

use anyhow::{Result, ensure};

use super::Ctr;

pub fn run(ctr: &Ctr<'_>) -> Result<()> {
    let rm = |flags: &[&str], script: &str| {
        ctr.run(&[&["--rm"], flags].concat(), &ctr.host.name(), &["sh", "-c", script]).finish()
    };
    let release = rm(&[], "uname -r")?.success()?;
    ensure!(release != std::fs::read_to_string("/proc/sys/kernel/osrelease")?, "the host's kernel");
    rm(&[], "exit 7")?.exits(7)?;
    let told = rm(&["--memory-limit", "67108864"], "tail /dev/zero; echo $?; echo err >&2")?;
    ensure!(told.success()? == "137\n" && told.err.ends_with("err\n"), "{told:?}");
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("file"), "mounted")?;
    let mount = format!("type=bind,src={},dst=/v,options=rbind:ro", dir.path().display());
    let told = rm(&["--mount", &mount], "cat /v/file; touch /v/x || echo -refused")?.success()?;
    ensure!(told == "mounted-refused\n", "{told}");
    Ok(())
}
