//! The control socket: one JSON request on a line, one JSON reply on a line. See this crate's README.
//!
//! Served by the thread that waits for the machine's end. Clients are the host's own user's programs, but a slow or broken
//! one must not stop the others: sockets do not block, lines and clients are limited, and a client that does not take its
//! reply is closed.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context;
use dewar_machine::Machine;
use dewar_vmm_api::{ControlReply, ControlRequest};
use rustix::event::PollFlags;

const MAX_LINE: usize = 4096;
const MAX_CLIENTS: usize = 16;

/// What the socket needs of a machine.
pub trait Controlled {
    fn answer(&self, request: &ControlRequest) -> ControlReply;
}

impl Controlled for Machine {
    fn answer(&self, request: &ControlRequest) -> ControlReply {
        match request {
            ControlRequest::Pause => self.pause(),
            ControlRequest::Resume => self.resume(),
            ControlRequest::Metrics => return ControlReply::Metrics(self.metrics()),
            ControlRequest::Stop => {}
        }
        ControlReply::Done
    }
}

struct Client {
    stream: UnixStream,
    pending: Vec<u8>,
}

/// A listening control socket. Dropped, its path is removed.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
}

impl Control {
    pub fn listen(path: &Path) -> anyhow::Result<Self> {
        let listener = UnixListener::bind(path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("Could not listen on the control socket {}", path.display()))?;
        Ok(Self { listener, path: path.to_owned(), clients: Vec::new() })
    }

    /// What to wait for, in the order that [`Control::serve`] expects.
    pub fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let accepting = if self.clients.len() < MAX_CLIENTS { PollFlags::IN } else { PollFlags::empty() };
        let clients = self.clients.iter().map(|client| (client.stream.as_fd(), PollFlags::IN));
        std::iter::once((self.listener.as_fd(), accepting)).chain(clients)
    }

    /// Serves those of [`Control::descriptors`] that are ready. `Break`: the machine shall stop.
    pub fn serve(&mut self, ready: &[bool], machine: &impl Controlled) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let mut ready = ready.iter().copied();
        let accept = ready.next().unwrap_or_default();
        self.clients.retain_mut(|client| {
            if !ready.next().unwrap_or_default() {
                return true;
            }
            let (keep, stop) = client.serve(machine);
            if stop {
                flow = ControlFlow::Break(());
            }
            keep
        });
        if accept && let Ok((stream, _)) = self.listener.accept() {
            // A client that cannot be made non-blocking is closed at once.
            if stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, pending: Vec::new() });
            }
        }
        flow
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may be gone already, with its directory.
        drop(std::fs::remove_file(&self.path));
    }
}

impl Client {
    /// (keep the client, stop the machine)
    fn serve(&mut self, machine: &impl Controlled) -> (bool, bool) {
        let mut buffer = [0; MAX_LINE];
        let open = match self.stream.read(&mut buffer) {
            Ok(0) => return (false, false),
            Ok(len) => {
                self.pending.extend_from_slice(buffer.get(..len).unwrap_or_default());
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        };
        let mut stop = false;
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let reply = match serde_json::from_slice::<ControlRequest>(&line) {
                Ok(request) => {
                    stop |= request == ControlRequest::Stop;
                    machine.answer(&request)
                }
                Err(error) => ControlReply::Error { message: format!("This is no control request: {error}") },
            };
            if self.reply(&reply).is_err() {
                return (false, stop);
            }
        }
        if self.pending.len() > MAX_LINE {
            let message = format!("A control request has at most {MAX_LINE} bytes");
            drop(self.reply(&ControlReply::Error { message }));
            return (false, stop);
        }
        (open, stop)
    }

    fn reply(&mut self, reply: &ControlReply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dewar_vmm_api::Metrics;
    use rustix::event::{PollFd, poll};
    use std::cell::RefCell;
    use std::io::{BufRead, BufReader};

    #[derive(Default)]
    struct Recorder(RefCell<Vec<ControlRequest>>);

    impl Controlled for Recorder {
        fn answer(&self, request: &ControlRequest) -> ControlReply {
            self.0.borrow_mut().push(request.clone());
            match request {
                ControlRequest::Metrics => ControlReply::Metrics(Metrics::default()),
                _ => ControlReply::Done,
            }
        }
    }

    fn round(control: &mut Control, machine: &Recorder) -> ControlFlow<()> {
        let mut fds: Vec<_> = control.descriptors().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect();
        poll(&mut fds, None).unwrap();
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        control.serve(&ready, machine)
    }

    fn connected() -> (Control, Recorder, UnixStream, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control");
        let mut control = Control::listen(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let machine = Recorder::default();
        assert!(round(&mut control, &machine).is_continue());
        (control, machine, client, dir)
    }

    fn line(client: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn requests_are_answered_line_by_line() {
        let (mut control, machine, mut client, _dir) = connected();
        client.write_all(b"{\"request\":\"pau").unwrap();
        assert!(round(&mut control, &machine).is_continue());
        assert!(machine.0.borrow().is_empty());
        client.write_all(b"se\"}\n").unwrap();
        assert!(round(&mut control, &machine).is_continue());
        assert_eq!(line(&client), "{\"reply\":\"done\"}\n");
        client.write_all(b"{\"request\":\"stop\"}\n").unwrap();
        assert!(round(&mut control, &machine).is_break());
        assert_eq!(*machine.0.borrow(), [ControlRequest::Pause, ControlRequest::Stop]);
    }

    #[test]
    fn nonsense_is_an_error_and_the_client_may_go_on() {
        let (mut control, machine, mut client, _dir) = connected();
        client.write_all(b"hello\n").unwrap();
        assert!(round(&mut control, &machine).is_continue());
        assert!(line(&client).starts_with("{\"reply\":\"error\""));
        client.write_all(b"{\"request\":\"metrics\"}\n").unwrap();
        assert!(round(&mut control, &machine).is_continue());
        assert!(line(&client).starts_with("{\"reply\":\"metrics\""));
    }

    #[test]
    fn endless_lines_close_the_client() {
        let (mut control, machine, mut client, _dir) = connected();
        client.write_all(&[b'x'; MAX_LINE + 1]).unwrap();
        while !control.clients.is_empty() {
            assert!(round(&mut control, &machine).is_continue());
        }
        assert!(line(&client).contains("at most 4096 bytes"));
    }

    #[test]
    fn the_socket_goes_with_the_control() {
        let (control, _machine, _client, dir) = connected();
        let path = dir.path().join("control");
        assert!(path.exists());
        drop(control);
        assert!(!path.exists());
        assert!(Control::listen(Path::new("/nonexistent/control")).is_err());
    }
}
