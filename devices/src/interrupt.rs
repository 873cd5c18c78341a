//! A device's interrupt line, as the device sees it.

use std::io;

/// An edge-triggered interrupt line.
pub trait Interrupt: Send {
    /// Raises one edge. Edges raised before the guest has seen the last one may merge with it.
    ///
    /// # Errors
    /// What the host said; the device goes on as if the edge had been lost on the wire.
    fn signal(&self) -> io::Result<()>;
}
