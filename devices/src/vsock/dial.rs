//! Connecting to a Unix socket without waiting: the standard library can only wait until there is room in the
//! queue of whoever listens, and one program that accepts nothing would hold up all others.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use vmm_sys_util::syscall::SyscallReturnCode;

/// Connects to the socket at `path`; the stream does not block.
///
/// # Errors
/// What the host said: `WouldBlock` where whoever listens has as many clients waiting as it wants.
pub(super) fn dial(path: &Path) -> io::Result<UnixStream> {
    let family = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
    let mut address = libc::sockaddr_un { sun_family: family, sun_path: [0; 108] };
    let name = path.as_os_str().as_bytes();
    if name.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let len = libc::socklen_t::try_from(size_of_val(&address)).map_err(io::Error::other)?;

    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the call takes numbers only.
    let fd = SyscallReturnCode(unsafe { libc::socket(libc::AF_UNIX, flags, 0) }).into_result()?;
    // SAFETY: the descriptor is new and nobody else's.
    let stream = unsafe { UnixStream::from_raw_fd(fd) };
    // SAFETY: `address` is initialised, of that length, and lives as long as the call.
    let connected = unsafe { libc::connect(fd, (&raw const address).cast(), len) };
    SyscallReturnCode(connected).into_empty_result().map(|()| stream)
}
