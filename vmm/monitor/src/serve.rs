//! Serves devices to QEMU over vhost-user: for each a listening socket, one connection, and a thread that serves it.
//!
//! Ends when QEMU has hung up on all devices, when one of them fails, or on SIGTERM. Whatever sockets were made are gone
//! then.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use anyhow::Context;
use dewar_devices::vsock::Vsock;
use dewar_machine::{open_disk, open_shared_fs};
use dewar_virtio::VirtioDevice;
use dewar_virtio::transport::vhost_user::{self, ServeError};
use dewar_vmm_api::{DiskConfig, Ending, FsConfig};
use rustix::event::{PollFd, PollFlags, poll};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EventFd};

use crate::{ServeArguments, descriptor};

/// A disk as it is written on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskArgument {
    socket: PathBuf,
    disk: DiskConfig,
}

impl FromStr for DiskArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut socket, mut id, mut files, mut read_only) = (None, None, Vec::new(), false);
        for part in split_commas(text) {
            match part.split_once('=') {
                Some(("socket", path)) => socket = Some(PathBuf::from(path)),
                Some(("id", name)) => id = Some(name.to_owned()),
                Some(("file", path)) => files.push(PathBuf::from(path)),
                None if part == "ro" => read_only = true,
                _ => return Err(format!("{part} is no property of a disk: use socket=, id=, ro, file=")),
            }
        }
        let socket = socket.ok_or("a disk needs socket=PATH")?;
        let id = id.ok_or("a disk needs id=NAME")?;
        if files.is_empty() {
            return Err("a disk needs at least one file=PATH".to_owned());
        }
        Ok(Self { socket, disk: DiskConfig { id, files, read_only } })
    }
}

/// Splits at commas; two commas stand for one that does not split.
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// A socket whose path is removed with it.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn bind(path: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path)
            .with_context(|| format!("Could not listen on the vhost-user socket {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may be gone already, with its directory.
        drop(std::fs::remove_file(&self.path));
    }
}

/// A device that QEMU has not connected to yet.
struct Waiting {
    socket: Socket,
    device: Box<dyn VirtioDevice>,
}

/// A device that is being served.
struct Serving {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

pub fn serve(arguments: ServeArguments) -> anyhow::Result<Ending> {
    let signals = descriptor::block_signals().context("Could not set up signals")?;
    let ready_fd = arguments.ready_fd.map(descriptor::take).transpose()?;
    let waiting = make(&arguments)?;
    anyhow::ensure!(!waiting.is_empty(), "There is nothing to serve: give --vsock-cid, --fs-tag or --disk");
    if let Some(mut fd) = ready_fd {
        fd.write_all(&[1]).context("Could not tell that the sockets listen")?;
    }
    let mut server = Server::new(waiting)?;
    let result = server.run(&signals);
    server.end();
    result
}

fn make(arguments: &ServeArguments) -> anyhow::Result<Vec<Waiting>> {
    let mut waiting = Vec::new();
    if let (Some(cid), Some(path), Some(socket)) = (arguments.vsock_cid, &arguments.vsock_path, &arguments.vsock_socket)
    {
        let device = Box::new(Vsock::new(u64::from(cid), path.clone())?);
        waiting.push(Waiting { socket: Socket::bind(socket)?, device });
    }
    if let (Some(tag), Some(server), Some(socket)) = (&arguments.fs_tag, &arguments.fs_server, &arguments.fs_socket) {
        let device = Box::new(open_shared_fs(&FsConfig { tag: tag.clone(), server: server.clone() })?);
        waiting.push(Waiting { socket: Socket::bind(socket)?, device });
    }
    for argument in &arguments.disks {
        let device = Box::new(open_disk(&argument.disk)?);
        waiting.push(Waiting { socket: Socket::bind(&argument.socket)?, device });
    }
    Ok(waiting)
}

/// How serving one device ended.
type Served = Result<(), ServeError>;

struct Server {
    waiting: Vec<Waiting>,
    serving: Vec<Serving>,
    /// Devices that QEMU has not hung up on.
    left: usize,
    results: (Sender<Served>, Receiver<Served>),
    /// Written for each result.
    ended: EventFd,
}

impl Server {
    fn new(waiting: Vec<Waiting>) -> anyhow::Result<Self> {
        let ended = EventFd::new(EFD_CLOEXEC).context("Could not create an event descriptor")?;
        let left = waiting.len();
        Ok(Self { waiting, serving: Vec::new(), left, results: mpsc::channel(), ended })
    }

    fn run(&mut self, signals: &OwnedFd) -> anyhow::Result<Ending> {
        while self.left > 0 {
            let mut fds = vec![
                PollFd::new(signals, PollFlags::IN),
                PollFd::from_borrowed_fd(descriptor::of_event(&self.ended), PollFlags::IN),
            ];
            fds.extend(self.waiting.iter().map(|each| PollFd::new(&each.socket.listener, PollFlags::IN)));
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.context("Could not wait for QEMU")?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(fds);
            let [signalled, ended, listeners @ ..] = ready.as_slice() else { continue };
            if *signalled {
                return Ok(Ending::Stopped);
            }
            if *ended {
                self.take_results()?;
            }
            // From the back, so that removing one leaves the indices of those before.
            for (index, _) in listeners.iter().enumerate().rev().filter(|(_, ready)| **ready) {
                self.connect(index)?;
            }
        }
        Ok(Ending::PowerOff)
    }

    fn take_results(&mut self) -> anyhow::Result<()> {
        // Only resets the event; what counts is in the channel.
        drop(self.ended.read());
        while let Ok(result) = self.results.1.try_recv() {
            self.left = self.left.saturating_sub(1);
            result?;
        }
        Ok(())
    }

    fn connect(&mut self, index: usize) -> anyhow::Result<()> {
        let Waiting { socket, device } = self.waiting.remove(index);
        let (stream, _) = socket.listener.accept().context("Could not accept QEMU's connection")?;
        let ours = stream.try_clone().context("Could not duplicate QEMU's connection")?;
        let ended = self.ended.try_clone().context("Could not duplicate an event descriptor")?;
        let results = self.results.0.clone();
        let thread = std::thread::Builder::new().name("vhost-user".into()).spawn(move || {
            let result = vhost_user::serve(stream, device);
            // The receiver is gone only when the process is ending.
            drop(results.send(result));
            drop(ended.write(1));
        });
        let thread = thread.context("Could not start a thread for QEMU's connection")?;
        self.serving.push(Serving { stream: ours, thread });
        Ok(())
    }

    /// Hangs up on whatever is still served and lets the devices clean up after themselves.
    fn end(self) {
        for Serving { stream, thread } in self.serving {
            drop(stream.shutdown(std::net::Shutdown::Both));
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_from_its_properties() {
        let disk: DiskArgument = "socket=/s,id=root,ro,file=/a,,b,file=/c=d".parse().unwrap();
        assert_eq!(disk.socket, PathBuf::from("/s"));
        assert_eq!(disk.disk.id, "root");
        assert!(disk.disk.read_only);
        assert_eq!(disk.disk.files, [PathBuf::from("/a,b"), PathBuf::from("/c=d")]);
    }

    #[test]
    fn incomplete_disks_and_unknown_properties_are_refused() {
        for (text, missing) in [
            ("id=a,file=/f", "socket="),
            ("socket=/s,file=/f", "id="),
            ("socket=/s,id=a", "file="),
            ("socket=/s,id=a,file=/f,rw", "rw is no property"),
            ("", "is no property"),
        ] {
            let error = text.parse::<DiskArgument>().unwrap_err();
            assert!(error.contains(missing), "{text}: {error}");
        }
    }

    fn disk_server(dir: &Path) -> Server {
        let (socket, file) = (dir.join("socket"), dir.join("file"));
        std::fs::write(&file, [0; 4096]).unwrap();
        let disk = DiskConfig { id: "d".into(), files: vec![file], read_only: true };
        let device = Box::new(open_disk(&disk).unwrap());
        Server::new(vec![Waiting { socket: Socket::bind(&socket).unwrap(), device }]).unwrap()
    }

    /// A descriptor that never gets readable while the other end lives.
    fn no_signal() -> (OwnedFd, UnixStream) {
        let (ours, other) = UnixStream::pair().unwrap();
        (ours.into(), other)
    }

    #[test]
    fn hanging_up_ends_the_server_and_removes_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let mut server = disk_server(dir.path());
        let path = dir.path().join("socket");
        drop(UnixStream::connect(&path).unwrap());
        let (signals, _other) = no_signal();
        assert_eq!(server.run(&signals).unwrap(), Ending::PowerOff);
        server.end();
        assert!(!path.exists());
    }

    #[test]
    fn a_signal_ends_the_server_while_it_waits_or_serves() {
        for connected in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut server = disk_server(dir.path());
            let path = dir.path().join("socket");
            let client = connected.then(|| UnixStream::connect(&path).unwrap());
            if connected {
                server.connect(0).unwrap();
            }
            let (signals, mut other) = no_signal();
            other.write_all(&[15]).unwrap();
            assert_eq!(server.run(&signals).unwrap(), Ending::Stopped);
            server.end();
            drop(client);
            assert!(!path.exists());
        }
    }
}
