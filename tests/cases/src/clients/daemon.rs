//! Engines that are daemons: started by the first case that wants one, ended with the runner.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const PATIENCE: Duration = Duration::from_secs(120);

static RUNNING: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Starts a daemon whose output goes to `log`, and waits until it says that it is ready (sd_notify(3)).
///
/// # Errors
/// With its log, when it never does.
pub fn start(mut command: Command, dir: &Path, log: &Path) -> Result<()> {
    let socket = dir.join("ready");
    let notified = UnixDatagram::bind(&socket).with_context(|| format!("cannot bind {}", socket.display()))?;
    notified.set_read_timeout(Some(PATIENCE))?;
    let output = std::fs::File::create(log)?;
    command.env("NOTIFY_SOCKET", &socket);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    // SAFETY: the function makes one system call and allocates nothing.
    unsafe { command.pre_exec(end_with_parent) };
    let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(child);
    let mut message = [0; 4096];
    loop {
        match notified.recv(&mut message) {
            Ok(length) if message[..length].split(|b| *b == b'\n').any(|line| line == b"READY=1") => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{:?} does not come up: {error}; it said:\n{said}", command.get_program());
            }
        }
    }
}

fn end_with_parent() -> std::io::Result<()> {
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Ends all daemons and waits for them.
///
/// # Errors
/// When one cannot be told to end.
pub fn end() -> Result<()> {
    for child in RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter_mut() {
        let pid = i32::try_from(child.id())?;
        // SAFETY: takes numbers; the child was not waited for, so the id is its own.
        let told = unsafe { libc::kill(pid, libc::SIGTERM) };
        ensure!(told == 0, "cannot end {pid}: {}", std::io::Error::last_os_error());
        child.wait()?;
    }
    Ok(())
}
