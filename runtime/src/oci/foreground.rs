//! A container's terminal joined to this process's own, for `run` and `exec -t` without a console socket.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::{Error, ErrorKind, ResultExt};

/// This process's terminal in raw mode, and the thread that carries the container's output.
#[derive(Debug)]
pub(super) struct Foreground {
    saved: Option<Termios>,
    output: Option<JoinHandle<()>>,
    master: File,
}

impl Foreground {
    /// Takes the master end that arrives on a console socket.
    pub(super) fn attach(console: &UnixStream) -> Result<Self, Error> {
        let master = receive(console)?;
        let failed = || "Cannot join the terminals".to_owned();
        let saved = if io::stdin().is_terminal() {
            let saved = tcgetattr(stdin()).context(failed)?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Drain, &raw).context(failed)?;
            Some(saved)
        } else {
            None
        };
        let (mut from, mut to) = (master.try_clone().context(failed)?, master.try_clone().context(failed)?);
        // The end of the other side reads as an error (EIO), which is an end as good as any.
        let output = std::thread::Builder::new()
            .name("output".into())
            .spawn(move || drop(deliver(&mut from, &mut io::stdout())))
            .context(failed)?;
        std::thread::Builder::new()
            .name("input".into())
            .spawn(move || drop(io::copy(&mut io::stdin(), &mut to)))
            .context(failed)?;
        let foreground = Self { saved, output: Some(output), master };
        foreground.resize();
        Ok(foreground)
    }

    /// Gives the container's terminal the size of this one.
    pub(super) fn resize(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }

    pub(super) fn duplicate(&self) -> Result<OwnedFd, Error> {
        self.master.as_fd().try_clone_to_owned().context(|| "Cannot duplicate the terminal".into())
    }

    /// Waits for the last output, and leaves the terminal as it was.
    pub(super) fn finish(mut self) {
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, saved);
        }
    }
}

/// Carries output. To a terminal it goes as it is; a file or pipe has lines that end as the program wrote them.
fn deliver(from: &mut impl io::Read, to: &mut (impl io::Write + IsTerminal)) -> io::Result<()> {
    if to.is_terminal() {
        return io::copy(from, to).map(drop);
    }
    let mut buffer = vec![0; 4096];
    let mut held = false;
    loop {
        let count = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        let plain = without_returns(buffer.get(..count).unwrap_or_default(), &mut held);
        to.write_all(&plain)?;
        to.flush()?;
    }
    if held {
        to.write_all(b"\r")?;
    }
    to.flush()
}

/// Takes back what a terminal makes of the ends of lines. `held`: the last byte was a return that may be one of those.
fn without_returns(bytes: &[u8], held: &mut bool) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if std::mem::take(held) && *byte != b'\n' {
            plain.push(b'\r');
        }
        if *byte == b'\r' {
            *held = true;
        } else {
            plain.push(*byte);
        }
    }
    plain
}

/// Gives a terminal the size of this process's.
pub(super) fn copy_size(master: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(stdin()) {
        let _ = tcsetwinsize(master, size);
    }
}

fn receive(console: &UnixStream) -> Result<File, Error> {
    let mut name = [0; 256];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let failed = || "Cannot receive the container's terminal".to_owned();
    recvmsg(console, &mut [io::IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC).context(failed)?;
    let master = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    master.map(File::from).ok_or_else(|| Error::new(ErrorKind::Internal, failed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_has_the_program_s_ends_of_lines() {
        let mut held = false;
        assert_eq!(without_returns(b"a\r\nb\rc\r", &mut held), b"a\nb\rc");
        assert_eq!(without_returns(b"\nd\r\r\n", &mut held), b"\nd\r\n");
        assert!(!held);
    }
}
