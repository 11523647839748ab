//! The host's end of the connections: unix sockets, none of which ever blocks. The only place of this device with system
//! calls on them.
//!
//! A host program that wants guest port N connects to the device's path and writes `CONNECT N\n`; one that wants to be
//! reached as host port N listens at the path with `_N` appended.

use std::{
    ffi::OsString,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    ptr,
};

use dewar_virtio::worker::{EventSet, Registry};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, send, shutdown, socket_with,
};
use vm_memory::VolatileSlice;

use super::{MAX_SEGMENTS, VsockError};

/// As long as `CONNECT 4294967295\r\n`, the longest request there is.
const MAX_REQUEST: usize = 20;

/// Host programs that may wait to be accepted; the kernel lowers this to its own limit.
const BACKLOG: i32 = 4096;

/// Reads of 16 KiB that closing makes at most; a socket's buffer seldom holds as much.
const MAX_WASTE_READS: usize = 64;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The path that host programs connect to. Exists from the device's creation to its end, whatever the driver does.
#[derive(Debug)]
pub(super) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
}

impl Listener {
    pub(super) fn bind(path: PathBuf) -> Result<Self, VsockError> {
        let longest = port_path(&path, u32::MAX);
        if SocketAddrUnix::new(&longest).is_err() {
            return Err(VsockError::PathTooLong { path });
        }
        match Self::listen_at(&path) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(source) => Err(VsockError::Listen { path, source }),
        }
    }

    fn listen_at(path: &Path) -> io::Result<OwnedFd> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        bind(&fd, &SocketAddrUnix::new(path)?)?;
        listen(&fd, BACKLOG)?;
        Ok(fd)
    }

    /// Has waiting host programs reported with `token`, once for each that comes.
    pub(super) fn watch(&self, registry: &Registry, token: u64) -> io::Result<()> {
        registry.add(&self.fd, token, EventSet::IN | EventSet::EDGE_TRIGGERED)
    }

    /// The next host program; `None` when none waits.
    pub(super) fn accept(&self) -> io::Result<Option<HostSocket>> {
        would_block(accept_with(&self.fd, FLAGS).map(HostSocket::new))
    }

    /// Connects to the host program that listens for `port`. One whose backlog is full counts as refusing.
    pub(super) fn connect(&self, port: u32) -> io::Result<HostSocket> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        connect(&fd, &SocketAddrUnix::new(port_path(&self.path, port))?)?;
        Ok(HostSocket::new(fd))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // In a jail the name is out of reach; whoever made the folder removes it then.
        let _ = fs::remove_file(&self.path);
    }
}

fn port_path(path: &Path, port: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!("_{port}"));
    PathBuf::from(name)
}

/// What a host program has asked for so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Incomplete,
    Port(u32),
    /// Not a request, or the program went away.
    Invalid,
}

/// One connected unix socket with what is known of its readiness (edge-triggered: true until a call says otherwise).
#[derive(Debug)]
pub(super) struct HostSocket {
    fd: OwnedFd,
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl HostSocket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, readable: true, writable: true }
    }

    /// Has every change of readiness reported with `token`.
    pub(super) fn watch(&self, registry: &Registry, token: u64) -> io::Result<()> {
        registry.add(&self.fd, token, EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED)
    }

    /// Takes the request line and not a byte of what follows it.
    pub(super) fn read_request(&self) -> Request {
        let mut line = [0; MAX_REQUEST];
        let peeked = match would_block(recv(&self.fd, &mut line, RecvFlags::PEEK | RecvFlags::DONTWAIT)) {
            Ok(Some((count, _))) => count,
            Ok(None) => return Request::Incomplete,
            Err(_) => return Request::Invalid,
        };
        let seen = line.get(..peeked).unwrap_or_default();
        let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
            return if peeked == 0 || peeked == MAX_REQUEST { Request::Invalid } else { Request::Incomplete };
        };
        let request = parse_request(seen.get(..end).unwrap_or_default());
        let taken = line.get_mut(..=end).map(|bytes| recv(&self.fd, bytes, RecvFlags::DONTWAIT));
        match (request, taken) {
            (Some(port), Some(Ok(_))) => Request::Port(port),
            _ => Request::Invalid,
        }
    }

    /// Tells the host program that the guest accepted. It has sent its request only, so its buffer has room.
    pub(super) fn write_accepted(&self, local_port: u32) -> io::Result<()> {
        let line = format!("OK {local_port}\n");
        let sent = send(&self.fd, line.as_bytes(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Writes guest memory; `None` when the host program's buffer is full.
    pub(super) fn send(&mut self, data: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        let guards: Vec<_> = data.iter().take(MAX_SEGMENTS).map(VolatileSlice::ptr_guard).collect();
        let mut parts = [EMPTY; MAX_SEGMENTS];
        for (part, guard) in parts.iter_mut().zip(&guards) {
            *part = libc::iovec { iov_base: guard.as_ptr().cast_mut().cast(), iov_len: guard.len() };
        }
        self.send_parts(parts.get_mut(..guards.len()).unwrap_or_default())
    }

    /// Writes bytes of ours; `None` when the host program's buffer is full.
    pub(super) fn send_bytes(&mut self, data: &[io::IoSlice<'_>; 2]) -> io::Result<Option<usize>> {
        let mut parts =
            data.each_ref().map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        self.send_parts(&mut parts)
    }

    fn send_parts(&mut self, parts: &mut [libc::iovec]) -> io::Result<Option<usize>> {
        let message = message(parts);
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: each iovec covers memory that its owner, borrowed by the caller for longer than this call, vouches for;
        // the kernel only reads it.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, flags) };
        let sent = would_block(usize::try_from(sent).map_err(|_| io::Error::last_os_error()));
        self.writable = matches!(sent, Ok(Some(_)));
        sent
    }

    /// Reads into guest memory; `None` when there is nothing to read, 0 at the end.
    pub(super) fn receive(&mut self, into: &[VolatileSlice<'_>]) -> io::Result<Option<usize>> {
        let guards: Vec<_> = into.iter().take(MAX_SEGMENTS).map(VolatileSlice::ptr_guard_mut).collect();
        let mut parts = [EMPTY; MAX_SEGMENTS];
        for (part, guard) in parts.iter_mut().zip(&guards) {
            *part = libc::iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() };
        }
        let mut message = message(parts.get_mut(..guards.len()).unwrap_or_default());
        // SAFETY: each iovec covers guest memory that its guard keeps mapped; nothing of ours refers to it.
        let received = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        let received = would_block(usize::try_from(received).map_err(|_| io::Error::last_os_error()));
        self.readable = matches!(received, Ok(Some(_)));
        received
    }

    /// Passes the guest's end of its stream on. Fails only when the host program is gone, which is reported otherwise.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = shutdown(&self.fd, how);
    }

    /// Closes in such a way that the host program reads what it was sent, then the end. With bytes of its own left unread
    /// the kernel would end it with an error instead.
    pub(super) fn close(self) {
        self.shutdown(Shutdown::Both);
        let mut waste = [0; 16 << 10];
        for _ in 0..MAX_WASTE_READS {
            match recv(&self.fd, &mut waste, RecvFlags::DONTWAIT) {
                Ok((1.., _)) => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    libc::msghdr {
        msg_name: ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: parts.as_mut_ptr(),
        msg_iovlen: parts.len(),
        msg_control: ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

/// Turns «try later» into `None`.
fn would_block<T, E: Into<io::Error>>(result: Result<T, E>) -> io::Result<Option<T>> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_request(line: &[u8]) -> Option<u32> {
    let line = str::from_utf8(line).ok()?;
    let digits = line.strip_suffix('\r').unwrap_or(line).strip_prefix("CONNECT ")?;
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    #[test]
    fn request_lines() {
        assert_eq!(parse_request(b"CONNECT 0"), Some(0));
        assert_eq!(parse_request(b"CONNECT 4294967295\r"), Some(u32::MAX));
        for wrong in
            ["", "CONNECT", "CONNECT ", "CONNECT x", "CONNECT +1", "CONNECT -1", "CONNECT 4294967296", "connect 1"]
        {
            assert_eq!(parse_request(wrong.as_bytes()), None, "{wrong}");
        }
        assert!("CONNECT 4294967295\r\n".len() <= MAX_REQUEST);
    }

    #[test]
    fn a_request_in_pieces_leaves_what_follows() {
        let (mut program, ours) = UnixStream::pair().unwrap();
        let socket = HostSocket::new(ours.try_clone().unwrap().into());
        assert_eq!(socket.read_request(), Request::Incomplete);
        program.write_all(b"CONNECT 5").unwrap();
        assert_eq!(socket.read_request(), Request::Incomplete);
        program.write_all(b"2\nhello").unwrap();
        assert_eq!(socket.read_request(), Request::Port(52));
        drop(program);
        let mut rest = String::new();
        (&ours).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "hello");
    }

    #[test]
    fn no_request_is_invalid() {
        let (mut program, ours) = UnixStream::pair().unwrap();
        let socket = HostSocket::new(ours.into());
        program.write_all(&[b'C'; MAX_REQUEST]).unwrap();
        assert_eq!(socket.read_request(), Request::Invalid);
        let (program, ours) = UnixStream::pair().unwrap();
        drop(program);
        assert_eq!(HostSocket::new(ours.into()).read_request(), Request::Invalid);
    }

    #[test]
    fn a_path_without_room_for_the_port_is_refused() {
        let error = Listener::bind(PathBuf::from("x".repeat(100))).unwrap_err();
        assert!(matches!(error, VsockError::PathTooLong { .. }));
    }
}
