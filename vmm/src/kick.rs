//! How a vCPU's thread is made to leave the guest: by a byte in a pipe.
//!
//! The pipe of a vCPU is signal-driven (`O_ASYNC`, fcntl(2)): whoever writes to it has the kernel send the kick signal
//! to that vCPU's thread and to no other. So a thread that kicks needs `write` and nothing else; no jail has a call
//! that sends a signal. The thread takes the signal from a signalfd(2), as which reading is all that it needs.
//!
//! What must hold:
//! - A pipe is never full, or a write to it would be no kick: it holds one byte for each pause since the last
//!   [`Kick::clear`], and one for the end ([`Lifecycle`](crate::lifecycle::Lifecycle) sees to that).
//! - The signal is blocked in the thread before it is aimed at, so that nothing is ever run by it. The kernel holds
//!   on to who the thread is, not to its number: one that has ended is not mistaken for another.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use firecrest_devices::host_io::Here;
use vmm_sys_util::signal::create_sigset;

/// Kicks of one vCPU.
#[derive(Debug)]
pub(crate) struct Kick {
    reader: File,
    writer: File,
}

/// What vCPUs' threads take their kicks from: each finds its own.
#[derive(Debug)]
pub(crate) struct Pending(OwnedFd);

/// `struct f_owner_ex`, and what it says: the owner is a thread.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}
const F_OWNER_TID: libc::c_int = 0;
const F_SETOWN_EX: libc::c_int = 15;
const F_SETSIG: libc::c_int = 10;

impl Kick {
    pub(crate) fn new() -> io::Result<Self> {
        let mut fds = [-1; 2];
        // SAFETY: the call writes two descriptors to the array.
        done(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: both descriptors are new and nobody else's.
        let [reader, writer] = fds.map(|fd| File::from(unsafe { OwnedFd::from_raw_fd(fd) }));
        Ok(Self { reader, writer })
    }

    /// From now on, kicks reach the calling thread, as `signal`. What was sent before has reached nobody.
    pub(crate) fn aim(&self, signal: libc::c_int) -> io::Result<()> {
        // SAFETY: takes nothing and cannot fail.
        let owner = Owner { kind: F_OWNER_TID, id: unsafe { libc::gettid() } };
        let fd = self.reader.as_raw_fd();
        // SAFETY: F_SETSIG and F_SETFL take numbers, F_SETOWN_EX reads a `struct f_owner_ex`.
        unsafe {
            done(libc::fcntl(fd, F_SETSIG, signal))?;
            done(libc::fcntl(fd, F_SETOWN_EX, &raw const owner))?;
            done(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_ASYNC))
        }
    }

    pub(crate) fn send(&self) {
        // The reader is open as long as this is, and the pipe is not full.
        let _: io::Result<usize> = (&self.writer).write(&[0]);
    }

    /// Empties the pipe. For the embedder's threads.
    pub(crate) fn clear(&self) {
        let _: io::Result<usize> = (&self.reader).read(&mut [0; 64]);
    }
}

impl Pending {
    pub(crate) fn new(signal: libc::c_int) -> io::Result<Self> {
        let set = create_sigset(&[signal])?;
        // SAFETY: the call reads the set.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        done(fd)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the kick that may be pending on the calling thread, so that the next `KVM_RUN` enters the guest. There
    /// is at most one of a signal that is not real-time, and of one that is, as many as there were calls to kick.
    pub(crate) fn take(&self) {
        let mut kicks = [0; 4 * size_of::<libc::signalfd_siginfo>()];
        while Here(&self.0).read(&mut kicks).is_ok_and(|len| len != 0) {}
    }
}

impl AsRawFd for Pending {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
#[path = "kick_tests.rs"]
mod tests;
