//! Sockets of the address family vsock, which the standard library does not have.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Connects to a port of the host or of a guest.
///
/// # Errors
/// Whatever the kernel says.
pub fn connect(cid: u32, port: u32) -> io::Result<UnixStream> {
    let socket = socket()?;
    let (address, length) = address(cid, port);
    // SAFETY: `address` is a socket address of `length` bytes that outlives the call.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    done(result)?;
    Ok(UnixStream::from(socket))
}

/// A port that takes connections from anywhere.
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens at a port.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn bind(port: u32, backlog: i32) -> io::Result<Self> {
        let socket = socket()?;
        let (address, length) = address(libc::VMADDR_CID_ANY, port);
        // SAFETY: `address` is a socket address of `length` bytes that outlives the call.
        done(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        // SAFETY: no memory is passed.
        done(unsafe { libc::listen(socket.as_raw_fd(), backlog) })?;
        Ok(Self(socket))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let flags = libc::SOCK_CLOEXEC;
        // SAFETY: the peer's address is not asked for, so that no memory is passed.
        let result =
            unsafe { libc::accept4(self.0.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
        let fd = done(result)?;
        // SAFETY: a descriptor the kernel has just made, which nobody else knows.
        Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = done(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a descriptor the kernel has just made, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "an address family is a small number, and so is a size of 16"
)]
fn address(cid: u32, port: u32) -> (libc::sockaddr_vm, libc::socklen_t) {
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_vm = unsafe { mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    (address, mem::size_of::<libc::sockaddr_vm>() as libc::socklen_t)
}

fn done(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
