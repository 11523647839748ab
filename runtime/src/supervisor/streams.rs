//! Pumps between the guest's streams and descriptors on the host.
//!
//! Output: one thread reads a guest stream and writes each piece to the log and to every attached sink, in that order; a
//! sink that is slow slows the container, a sink that is gone is dropped. Input: one thread for each attached input.

use std::io::{ErrorKind as IoKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::lock;
use crate::container::log::{LogWriter, Output};
use crate::control::now_ns;
use crate::{Error, ResultExt};

/// Bytes moved at once.
const CHUNK: usize = 128 << 10;

/// The descriptors that an output goes to.
#[derive(Debug)]
pub(crate) struct Sinks {
    sinks: Mutex<SinkList>,
}

#[derive(Debug)]
struct SinkList {
    /// `None` after the output's end.
    open: Option<Vec<OwnedFd>>,
    /// Losing the last sink ends the output.
    foreground: bool,
    at_end: AtEnd,
}

/// What is done when an output has ended.
#[derive(Default)]
struct AtEnd(Option<Box<dyn FnOnce() + Send>>);

impl std::fmt::Debug for AtEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "AtEnd(given)" } else { "AtEnd" })
    }
}

impl Sinks {
    pub(super) fn new(foreground: bool) -> Self {
        Self { sinks: Mutex::new(SinkList { open: Some(Vec::new()), foreground, at_end: AtEnd::default() }) }
    }

    pub(super) fn add(&self, fd: OwnedFd) {
        if let Some(open) = &mut lock(&self.sinks).open {
            open.push(fd);
        }
    }

    /// Writes to all; false when the process's output has lost its last reader in the foreground.
    fn write(&self, bytes: &[u8]) -> bool {
        let mut list = lock(&self.sinks);
        let foreground = list.foreground;
        let Some(open) = &mut list.open else { return true };
        let before = open.len();
        open.retain(|fd| write_all(fd, bytes));
        !(foreground && before > 0 && open.is_empty())
    }

    /// Has something done when the output ends, or at once when it has.
    pub(super) fn at_end(&self, work: impl FnOnce() + Send + 'static) {
        let mut list = lock(&self.sinks);
        if list.open.is_some() {
            list.at_end.0 = Some(Box::new(work));
        } else {
            drop(list);
            work();
        }
    }

    fn close(&self) {
        let mut list = lock(&self.sinks);
        list.open = None;
        let work = list.at_end.0.take();
        drop(list);
        work.into_iter().for_each(|work| work());
    }
}

fn write_all(fd: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Somebody made the descriptor non-blocking, as shells and terminals do to each other.
            Err(Errno::AGAIN) => {
                if poll(&mut [PollFd::new(fd, PollFlags::OUT)], None).is_err_and(|e| e != Errno::INTR) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// Starts the thread that carries one output of the guest.
pub(super) fn pump_output(
    mut source: UnixStream,
    sinks: Arc<Sinks>,
    log: Option<(Arc<Mutex<LogWriter>>, Output)>,
) -> Result<JoinHandle<()>, Error> {
    let pump = move || {
        let mut buffer = vec![0; CHUNK];
        let mut log_works = true;
        loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == IoKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = buffer.get(..n).unwrap_or_default();
            if let Some((log, output)) = &log
                && log_works
                && let Err(error) = lock(log).write(*output, now_ns(), bytes)
            {
                eprintln!("dewar-supervisor: the log is cut short: {error}");
                log_works = false;
            }
            if !sinks.write(bytes) {
                break;
            }
        }
        sinks.close();
        let _ = source.shutdown(Shutdown::Both);
    };
    std::thread::Builder::new().name("output".into()).spawn(pump).context(|| "Cannot start a thread".into())
}

/// The guest's end of a process's input.
#[derive(Debug)]
pub(crate) struct StdinTarget {
    socket: UnixStream,
}

impl StdinTarget {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }
}

/// Starts the thread that carries one attached input to the guest. `once`: its end is the end of the process's input.
pub(super) fn pump_input(source: OwnedFd, target: Arc<StdinTarget>, once: bool) -> Result<(), Error> {
    let pump = move || {
        let mut buffer = vec![0; CHUNK];
        while wait_input(&source, &target.socket) {
            match rustix::io::read(&source, &mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    if (&target.socket).write_all(buffer.get(..n).unwrap_or_default()).is_err() {
                        return;
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => break,
            }
        }
        if once {
            let _ = target.socket.shutdown(Shutdown::Write);
        }
    };
    std::thread::Builder::new().name("input".into()).spawn(pump).context(|| "Cannot start a thread".into())?;
    Ok(())
}

/// Waits for input; false when the guest's side is closed, so that nothing is read that nobody will take.
fn wait_input(source: &OwnedFd, target: &UnixStream) -> bool {
    loop {
        let mut fds = [
            PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(target.as_fd(), PollFlags::RDHUP),
        ];
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) if !fds[1].revents().is_empty() => return false,
            Ok(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_reaches_every_sink_and_the_log_and_then_ends() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("log");
        let log = Arc::new(Mutex::new(LogWriter::open(&path).expect("opens")));
        let (mut guest, host) = UnixStream::pair().expect("a pair");
        let sinks = Arc::new(Sinks::new(true));
        let mut readers = Vec::new();
        for _ in 0..2 {
            let (reader, writer) = UnixStream::pair().expect("a pair");
            sinks.add(writer.into());
            readers.push(reader);
        }
        let pump = pump_output(host, sinks, Some((log, Output::Stderr))).expect("starts");
        guest.write_all(b"hello").expect("writes");
        drop(guest);
        pump.join().expect("ends");
        for mut reader in readers {
            let mut text = String::new();
            reader.read_to_string(&mut text).expect("reads to the end");
            assert_eq!(text, "hello");
        }
        let record = crate::container::log::LogReader::open(&path).next_record().expect("reads").expect("a record");
        assert_eq!((record.output, record.bytes.as_slice()), (Output::Stderr, &b"hello"[..]));
    }

    #[test]
    fn the_end_of_the_last_reader_in_the_foreground_reaches_the_guest() {
        let (mut guest, host) = UnixStream::pair().expect("a pair");
        let sinks = Arc::new(Sinks::new(true));
        let (reader, writer) = UnixStream::pair().expect("a pair");
        sinks.add(writer.into());
        drop(reader);
        let pump = pump_output(host, sinks, None).expect("starts");
        guest.write_all(b"x").expect("writes");
        pump.join().expect("ends");
        assert_eq!(guest.read(&mut [0; 1]).expect("reads"), 0);
    }

    #[test]
    fn input_ends_with_its_source_only_when_it_is_the_only_one() {
        for once in [true, false] {
            let (host, mut guest) = UnixStream::pair().expect("a pair");
            let (mut writer, source) = UnixStream::pair().expect("a pair");
            let target = Arc::new(StdinTarget::new(host));
            pump_input(source.into(), Arc::clone(&target), once).expect("starts");
            writer.write_all(b"abc").expect("writes");
            drop(writer);
            let mut bytes = [0; 3];
            guest.read_exact(&mut bytes).expect("reads");
            assert_eq!(&bytes, b"abc");
            if once {
                assert_eq!(guest.read(&mut bytes).expect("reads"), 0);
            } else {
                (&target.socket).write_all(b"more").expect("still open");
                guest.read_exact(&mut bytes).expect("reads");
            }
        }
    }
}
