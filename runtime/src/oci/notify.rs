//! `NOTIFY_SOCKET` (sd_notify(3)), as runc passes it on: the container has a socket of its own, and when it says there that it
//! is ready, `start` tells the caller's service manager so, and which process stands for the container.
//!
//! The workload's socket is the guest's: of what comes over it nothing reaches the host but that one fact.

use std::ffi::{OsStr, OsString};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use dewar_protocol::{NOTIFY_DIR, Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};

use super::link::Link;
use super::state::{Record, wait_end};
use crate::{Error, ErrorKind, ResultExt};

/// Where the container finds its socket.
const FOLDER: &str = "/run/notify";
const VARIABLE: &str = "NOTIFY_SOCKET";
/// What a service manager gets to read the message, before its sender is gone and it cannot tell who that was.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };
/// How long a container's process may outlive its machine.
const ENDING: Duration = Duration::from_secs(1);

/// The socket of the caller's service manager.
pub(super) fn of_the_caller() -> Option<OsString> {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty())
}

/// Gives a container its socket: the mount, and the variable that says where it is.
pub(super) fn give(spec: &mut Value) {
    let mount = json!({
        "destination": FOLDER,
        "type": "bind",
        "source": NOTIFY_DIR,
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    });
    add(&mut spec["mounts"], mount);
    add(&mut spec["process"]["env"], json!(format!("{VARIABLE}={FOLDER}/notify.sock")));
}

fn add(list: &mut Value, value: Value) {
    match list {
        Value::Array(list) => list.push(value),
        other => *other = json!([value]),
    }
}

/// Waits until the container says that it is ready, and tells the service manager; returns also when the container has ended.
///
/// # Errors
/// When the guest or the service manager does not answer.
pub(super) fn pass_on(record: &Record, to: &OsStr) -> Result<(), Error> {
    let request = Request::AwaitReady { container: record.id.clone() };
    match Link::connect(&record.sandbox).and_then(|mut link| link.agent(request)) {
        Ok(Reply::Ready) => tell(to, record.pid),
        Ok(Reply::Done) => Ok(()),
        Ok(other) => Err(crate::supervisor::unexpected(&other)),
        // The machine of a container that has ended does not answer any more.
        Err(_) if record.process().is_none_or(|process| wait_end(&process, ENDING)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn tell(to: &OsStr, pid: i32) -> Result<(), Error> {
    let failed = || format!("Cannot tell {} that the container is ready", to.display());
    let socket = UnixDatagram::unbound().context(failed)?;
    socket.connect_addr(&address(to).context(failed)?).context(failed)?;
    // The process first, so that it is known whose the readiness is.
    socket.send(format!("MAINPID={pid}\nREADY=1\n").as_bytes()).context(failed)?;
    // sd_notify_barrier(3): its end of the pipe closes when all before it has been read. Who does not know it never closes it.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context(failed)?;
    let fds = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new(ErrorKind::Internal, failed()));
    }
    sendmsg(&socket, &[IoSlice::new(b"BARRIER=1")], &mut ancillary, SendFlags::NOSIGNAL).context(failed)?;
    drop(writer);
    while poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&PATIENCE)) == Err(rustix::io::Errno::INTR) {}
    Ok(())
}

fn address(path: &OsStr) -> std::io::Result<SocketAddr> {
    match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_given_its_socket() {
        let mut spec = json!({"process": {"env": ["A=1"]}});
        give(&mut spec);
        assert_eq!(spec["process"]["env"], json!(["A=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]));
        assert_eq!(spec["mounts"][0]["source"], NOTIFY_DIR);
    }

    #[test]
    fn the_service_manager_is_told_the_process_and_then_that_it_is_ready() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("manager");
        for (name, to) in [
            (SocketAddr::from_pathname(&path).expect("short"), path.clone().into_os_string()),
            (
                SocketAddr::from_abstract_name(path.as_os_str().as_bytes()).expect("short"),
                OsString::from(format!("@{}", path.display())),
            ),
        ] {
            let manager = UnixDatagram::bind_addr(&name).expect("binds");
            let reader = std::thread::spawn(move || {
                let mut buffer = [0; 256];
                // Whoever reads without asking for descriptors closes them.
                [(); 2].map(|()| {
                    let length = manager.recv(&mut buffer).expect("reads");
                    String::from_utf8_lossy(&buffer[..length]).into_owned()
                })
            });
            tell(&to, 7).expect("tells");
            assert_eq!(reader.join().expect("ends"), ["MAINPID=7\nREADY=1\n", "BARRIER=1"]);
        }
        assert!(tell(dir.path().join("nobody").as_os_str(), 7).is_err());
    }
}
