//! A device's interrupt line, as the device sees it; and what threads wake one another with.

use std::io;

use vmm_sys_util::eventfd::EventFd;

/// An edge-triggered interrupt line.
pub trait Interrupt: Send {
    /// Raises one edge. Edges raised before the guest has seen the last one may merge with it.
    ///
    /// # Errors
    /// What the host said; the device goes on as if the edge had been lost on the wire.
    fn signal(&self) -> io::Result<()>;
}

/// A new eventfd that never blocks, and that no child process inherits.
///
/// # Errors
/// The host has no descriptors left.
pub fn eventfd() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}
