//! A terminal for the process, from the container's own devpts.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{OFlags, fstat, fstatfs, major, minor},
    pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt},
};

use super::{
    mounts,
    paths::{self, Missing},
    report,
};
use crate::{
    error::{Doing, Failure, Result},
    sys::process,
};

/// `statfs.f_type` of devpts (linux/magic.h).
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Opens a pty, gives the master to the agent, and makes the other side the standard streams and the controlling
/// terminal. The calling process must lead its session. With `console` it also appears as `/dev/console`.
pub fn attach(root: BorrowedFd<'_>, console: bool) -> Result<()> {
    let failed = || "Opening a terminal in the container's /dev/pts failed".to_owned();
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = paths::open(root, Path::new("dev/pts/ptmx"), flags).doing(failed)?;
    let device = fstat(&master).doing(failed)?.st_rdev;
    let magic = fstatfs(&master).doing(failed)?.f_type;
    if magic != DEVPTS_MAGIC || (major(device), minor(device)) != (5, 2) {
        return Err(Failure::invalid("/dev/pts/ptmx of the container is not a terminal multiplexer"));
    }
    unlockpt(&master).doing(failed)?;
    let terminal = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).doing(failed)?;
    report::terminal(master.as_fd())?;
    if console {
        let target = paths::ensure(root, Path::new("dev/console"), Missing::File)
            .doing(|| "Making /dev/console failed".into())?;
        mounts::bind(terminal.as_fd(), target.as_fd()).doing(|| "Mounting /dev/console failed".into())?;
    }
    for number in 0..3 {
        process::place_descriptor(&terminal, number, false).doing(failed)?;
    }
    process::set_controlling_terminal(&terminal).doing(|| "Taking the controlling terminal failed".into())
}
