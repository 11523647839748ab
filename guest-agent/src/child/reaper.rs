//! The container's own init (`--init`): forwards signals to the command, reaps orphans, ends with the command's code.

use std::convert::Infallible;

use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, WaitStatus, getpid, setpgid, wait},
    stdio::stdin,
    termios::tcsetpgrp,
};

use super::{command::Command, exit_code, report};
use crate::{
    error::{Doing, Result},
    sys::{process, signal},
};

/// Runs the command as a child of this process, which must be PID 1 of its namespace.
pub fn run(command: &Command) -> Result<Infallible> {
    signal::block_all().doing(|| "Blocking signals failed".into())?;
    match process::fork().doing(|| "Making the command's process failed".into())? {
        None => run_command(command),
        Some(pid) => {
            // The agent takes the closing of every copy of the report socket for a successful execve.
            process::close_from(3).doing(|| "Closing the report socket failed".into())?;
            serve(pid)
        }
    }
}

fn run_command(command: &Command) -> Result<Infallible> {
    // A process group of its own, in the foreground: what the terminal sends reaches the command once, not twice.
    // Both fail harmlessly without a terminal; SIGTTOU is still blocked.
    let _ = setpgid(None, None);
    let _ = tcsetpgrp(stdin(), getpid());
    let failure = match signal::block_only(&[]) {
        Ok(()) => command.run(),
        Err(e) => return Err(e).doing(|| "Resetting the signal mask failed".into()),
    };
    report::failure(&failure);
    process::exit_now(exit_code(&failure))
}

fn serve(main: Pid) -> ! {
    loop {
        match signal::wait_any() {
            Ok(libc::SIGCHLD) => reap(main),
            // The command may be gone already; its end is on the way.
            Ok(number) => drop(signal::send_to(main.as_raw_nonzero().get(), number)),
            Err(_) => {}
        }
    }
}

fn reap(main: Pid) {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == main => process::exit_now(i32::from(status_code(status))),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// A process's exit code, or 128 + n when signal n ended it.
pub fn status_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => signal.saturating_add(128),
        (None, None) => 255,
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}
