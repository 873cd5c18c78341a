//! The socket that programs on the host connect to, and the file it is known by.
#![allow(unsafe_code, reason = "a system call")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::ptr;

use vmm_sys_util::syscall::SyscallReturnCode;

/// A listening socket. Its file is removed with it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    id: (u64, u64),
}

impl Listener {
    /// Makes the socket and its file, where there is nothing yet.
    ///
    /// # Errors
    /// What the host said; there is no file then.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let socket = UnixListener::bind(path)?;
        let id = identify(path).inspect_err(|_| drop(fs::remove_file(path)))?;
        let listener = Self { socket, path: path.to_path_buf(), id };
        listener.socket.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The next client, as a socket that does not block: the standard library has another call for that, which
    /// the thread's jail does not have.
    ///
    /// # Errors
    /// What the host said: `WouldBlock` where there is none.
    pub fn accept(&self) -> io::Result<UnixStream> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no address is asked for.
        let fd = unsafe { libc::accept4(self.socket.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
        let fd = SyscallReturnCode(fd).into_result()?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { UnixStream::from_raw_fd(fd) })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Somebody may have replaced the file by one of their own.
        let is_ours = identify(&self.path).is_ok_and(|id| id == self.id);
        if let Some(error) = is_ours.then(|| fs::remove_file(&self.path).err()).flatten() {
            log::warn!("{} is not removed: {error}", self.path.display());
        }
    }
}

fn identify(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
