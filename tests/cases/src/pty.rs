//! A command on a terminal of its own, as a person has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::{Result, bail, ensure};

/// Seconds that any expected output may take.
const PATIENCE_MS: i32 = 120_000;

/// The person's side.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    pub child: Child,
    seen: String,
}

impl Terminal {
    /// Starts a command on a terminal of the given size.
    ///
    /// # Errors
    /// When there are no terminals, or the command cannot be started.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Result<Self> {
        // Closed on exec from birth: another case's child that inherited a side would keep the terminal open.
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: takes flags.
        let ours = owned(unsafe { libc::posix_openpt(flags) })?;
        // SAFETY: the descriptor is open.
        ensure!(unsafe { libc::unlockpt(ours.as_raw_fd()) } == 0, "unlockpt: {}", std::io::Error::last_os_error());
        // SAFETY: the request takes flags and answers a descriptor.
        let theirs = owned(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
        set_size(&ours, rows, columns)?;
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        // SAFETY: the function makes two system calls and allocates nothing.
        unsafe { command.pre_exec(take_terminal) };
        let child = command.spawn()?;
        drop(command);
        Ok(Self { keyboard: File::from(ours), child, seen: String::new() })
    }

    /// Types.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn type_text(&mut self, text: &str) -> Result<()> {
        self.keyboard.write_all(text.as_bytes())?;
        Ok(())
    }

    /// Reads until a text has appeared, and answers all that was seen since the last time.
    ///
    /// # Errors
    /// When the terminal closes, or two minutes pass, without it.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.seen, rest));
            }
            if self.read_more()? == 0 {
                bail!("the terminal closed without {text:?}; seen: {:?}", self.seen);
            }
        }
    }

    fn read_more(&mut self) -> Result<usize> {
        let mut poll = libc::pollfd { fd: self.keyboard.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) };
        ensure!(ready == 1, "nothing more came; seen: {:?}", self.seen);
        let mut buffer = [0; 4096];
        // A terminal whose other side is closed reads as an error.
        let n = self.keyboard.read(&mut buffer).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
        Ok(n)
    }

    /// Reads to the end and answers what is left and the exit code.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(mut self) -> Result<(String, i32)> {
        while self.read_more()? > 0 {}
        let status = self.child.wait()?;
        Ok((self.seen, status.code().unwrap_or(-1)))
    }

    /// Changes the terminal's size; its programs are told by SIGWINCH.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        set_size(&self.keyboard, rows, columns)
    }
}

fn owned(fd: i32) -> Result<OwnedFd> {
    ensure!(fd >= 0, "no terminal: {}", std::io::Error::last_os_error());
    // SAFETY: a fresh descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_size(terminal: &impl AsRawFd, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the size is read from a valid place.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    ensure!(done == 0, "TIOCSWINSZ: {}", std::io::Error::last_os_error());
    Ok(())
}

fn take_terminal() -> std::io::Result<()> {
    // SAFETY: setsid takes nothing.
    if unsafe { libc::setsid() } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: descriptor 0 is the terminal.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
