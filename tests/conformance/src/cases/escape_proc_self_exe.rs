//! Writing to /proc/self/exe of what `exec` starts changes no program of the host.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};

use crate::Host;

pub fn run(host: &Host) -> Result<()> {
    let mut bundle = host.bundle()?;
    bundle.grant(&["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]).script("echo up; exec sleep 1000");
    let mut container = bundle.create()?;
    container.start()?;
    container.says("up")?;

    let name = std::env::var("OCI_RUNTIME").unwrap_or_default();
    let before = fs::read("/bin/busybox")?;
    // The program is a script whose interpreter is the executable that starts it.
    fs::write(bundle.rootfs("bin/trap"), "#!/proc/self/exe\n")?;
    fs::set_permissions(bundle.rootfs("bin/trap"), fs::Permissions::from_mode(0o755))?;
    container.exec_sh("(while :; do for p in /proc/[0-9]*; do (echo x >$p/exe) 2>/dev/null; done; done) >/dev/null 2>&1 &")?;
    for _ in 0..3 {
        container.exec(&[], &["/bin/trap"])?;
    }
    ensure!(host.runtime(&["--version"])?.code == 0, "the runtime {name} no longer runs");
    ensure!(fs::read("/bin/busybox")? == before);
    Ok(())
}
