//! AF_VSOCK sockets, which `std` and `rustix` do not know.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    ptr,
};

use super::check;

/// The host's context id.
pub const HOST_CID: u32 = libc::VMADDR_CID_HOST;

fn socket(flags: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket touches no memory of this process.
    let fd = check(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) })?;
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: an all-zero sockaddr_vm is a valid one.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

const ADDRESS_SIZE: libc::socklen_t = size_of::<libc::sockaddr_vm>() as libc::socklen_t;

/// Connects to a port of the host, blocking.
pub fn connect_host(port: u32) -> io::Result<OwnedFd> {
    let socket = socket(0)?;
    let address = address(HOST_CID, port);
    // SAFETY: the address is a sockaddr_vm of the size given and outlives the call.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_SIZE) })?;
    Ok(socket)
}

/// A non-blocking listener on a port of this machine.
pub fn listen(port: u32) -> io::Result<OwnedFd> {
    let socket = socket(libc::SOCK_NONBLOCK)?;
    let address = address(libc::VMADDR_CID_ANY, port);
    // SAFETY: the address is a sockaddr_vm of the size given and outlives the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), ADDRESS_SIZE) })?;
    // SAFETY: listen touches no memory of this process.
    check(unsafe { libc::listen(socket.as_raw_fd(), 128) })?;
    Ok(socket)
}

/// Accepts a non-blocking connection and says which context id it comes from.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, u32)> {
    let mut peer = address(0, 0);
    let mut size = ADDRESS_SIZE;
    // SAFETY: the kernel writes at most `size` bytes to the address, which has them.
    let fd = check(unsafe {
        libc::accept4(
            listener.as_fd().as_raw_fd(),
            (&raw mut peer).cast(),
            &raw mut size,
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    })?;
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, peer.svm_cid))
}

/// Whether the other side still takes bytes. An empty send is refused once it does not, and is nothing otherwise.
pub fn peer_receives(socket: impl AsFd) -> bool {
    // SAFETY: no bytes are passed.
    let sent =
        unsafe { libc::send(socket.as_fd().as_raw_fd(), ptr::null(), 0, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) };
    sent >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}
