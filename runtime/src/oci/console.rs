//! A container's terminal: a pseudo terminal on the host whose one end goes to the engine by the console socket.
//!
//! The line discipline is the guest's: the host's is raw, and hands on bytes and sizes. Its other end is the controlling
//! terminal of the process that pumps, so that a new size arrives there as SIGWINCH.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use dewar_protocol::WindowSize;
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::{Error, ErrorKind, ResultExt};

/// The end that stays.
#[derive(Debug)]
pub(super) struct Console {
    slave: OwnedFd,
}

impl Console {
    /// Makes a terminal, takes it as this session's, and sends its master to whoever listens on the console socket. The
    /// calling process has to lead a session without a terminal.
    pub(super) fn open(socket: &UnixStream, size: Option<WindowSize>) -> Result<Self, Error> {
        let failed = || "Cannot make a terminal".to_owned();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context(failed)?;
        grantpt(&master).context(failed)?;
        unlockpt(&master).context(failed)?;
        let name = ptsname(&master, Vec::new()).context(failed)?;
        let slave =
            rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).context(failed)?;
        let mut settings = tcgetattr(&slave).context(failed)?;
        settings.make_raw();
        tcsetattr(&slave, OptionalActions::Now, &settings).context(failed)?;
        if let Some(size) = size {
            let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&slave, size).context(failed)?;
        }
        // Of a container that cannot be made the reason is told after its terminal is gone.
        super::signals::block_hangup().context(failed)?;
        rustix::process::ioctl_tiocsctty(&slave).context(|| "Cannot take the terminal as this session's".into())?;
        send(socket, &master, name.to_bytes())?;
        Ok(Self { slave })
    }

    pub(super) fn size(&self) -> Option<WindowSize> {
        let size = tcgetwinsize(&self.slave).ok()?;
        Some(WindowSize { rows: size.ws_row, columns: size.ws_col })
    }

    pub(super) fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.slave.try_clone().context(|| "Cannot duplicate the terminal".into())
    }
}

/// Connects to a console socket.
///
/// # Errors
/// [`ErrorKind::Invalid`] with its path.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).kind(ErrorKind::Invalid, || format!("console socket {}", path.display()))
}

fn send(socket: &UnixStream, master: &OwnedFd, name: &[u8]) -> Result<(), Error> {
    let fds = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[std::io::IoSlice::new(name)], &mut ancillary, SendFlags::NOSIGNAL)
        .context(|| "Cannot send the terminal to the console socket".into())?;
    Ok(())
}
