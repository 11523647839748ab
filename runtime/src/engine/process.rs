//! The processes that make up a machine: spawned to die with the supervisor, watched by pidfd, killed on drop.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::{Error, ErrorKind, ResultExt};

/// How a machine's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The guest powered off in an orderly way.
    pub orderly: bool,
    /// A clause for messages: "the guest kernel panicked".
    pub reason: String,
}

/// A child that the kernel kills when the thread that spawned it (the supervisor's main thread) ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: OwnedFd,
    status: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let parent = rustix::process::getpid();
        let die_with_parent = move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the line above.
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(std::io::Error::from_raw_os_error(3)) }
        };
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.spawn().kind(ErrorKind::Machine, || format!("Cannot start {program}"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(ErrorKind::Internal, "A child process has no valid id"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context(|| format!("Cannot watch {program}"))?;
        Ok(Self { child, pidfd, status: None })
    }

    /// The reading end of the child's standard output, when that was piped.
    pub(super) fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Nobody else's as long as the process has not been waited for.
    pub(crate) fn pid(&self) -> Option<i32> {
        let pid = i32::try_from(self.child.id()).ok();
        pid.filter(|_| self.status.is_none())
    }

    /// Stops all its threads; none of them runs when this returns. It can still be killed.
    pub(super) fn stop(&self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        if self.status.is_none() && pidfd_send_signal(&self.pidfd, Signal::STOP).is_ok() {
            while waitid(WaitId::PidFd(self.fd()), options).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        }
    }

    pub(super) fn kill(&self) {
        // It may have ended already, which is as good.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        self.status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            self.kill();
            self.wait();
        }
    }
}

/// "was killed by signal 9", "exited with code 1".
pub(super) fn describe(status: Option<ExitStatus>) -> String {
    match status.map(|s| (s.code(), s.signal())) {
        Some((Some(code), _)) => format!("exited with code {code}"),
        Some((None, Some(signal))) => format!("was killed by signal {signal}"),
        _ => "ended in an unknown way".into(),
    }
}

/// The last bytes of a file as text, made safe for a terminal: the guest wrote it.
pub(crate) fn tail(path: &Path, limit: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    printable(&read().unwrap_or_default())
}

/// Bytes that the guest wrote as text that cannot steer a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| *c == '\n' || *c == '\t' || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_printed_cannot_steer_the_terminal() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        std::fs::write(&path, b"start\x1b[2Jclear\r\nend\xff\n").expect("writes");
        assert_eq!(tail(&path, 100), "start[2Jclear\nend\u{fffd}\n");
        assert_eq!(tail(&path, 3), "d\u{fffd}\n");
        assert_eq!(tail(&dir.path().join("none"), 3), "");
    }

    #[test]
    fn a_process_is_watched_and_killed() {
        let mut sleeper = Process::spawn(Command::new("sleep").arg("1000")).expect("starts");
        sleeper.kill();
        assert_eq!(describe(sleeper.wait()), "was killed by signal 9");
        assert_eq!(sleeper.pid(), None);
    }

    #[test]
    fn a_stopped_process_stands_still_and_can_be_killed() {
        let mut counter = Process::spawn(Command::new("sh").args(["-c", "while :; do :; done"])).expect("starts");
        let stat = format!("/proc/{}/stat", counter.pid().expect("lives"));
        counter.stop();
        let text = std::fs::read_to_string(stat).expect("is there");
        assert!(text.contains(" T "), "{text}");
        counter.kill();
        assert_eq!(describe(counter.wait()), "was killed by signal 9");
        // Of one that has ended nothing is waited for.
        counter.stop();
    }
}
