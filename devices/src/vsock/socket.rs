//! A socket in the worker's hands, which it can use and not close: its jail has no call for that.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::mailbox::{Mailbox, Order};

/// A connected socket. Dropping it has the broker close it; it is to be removed from what is waited for before.
#[derive(Debug)]
pub(super) struct Socket {
    /// There until the drop.
    stream: Option<UnixStream>,
    fd: RawFd,
    orders: Arc<Mailbox<Order>>,
}

impl Socket {
    pub fn new(stream: UnixStream, orders: &Arc<Mailbox<Order>>) -> Self {
        Self { fd: stream.as_raw_fd(), stream: Some(stream), orders: Arc::clone(orders) }
    }

    /// Closes a direction.
    ///
    /// # Errors
    /// What the host said: a socket whose peer has gone cannot be shut down, and need not be.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.stream.as_ref().map_or(Ok(()), |stream| stream.shutdown(how))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.orders.put(Order::Close(stream));
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
