//! From the driver to the TAP.
//!
//! A frame is written from the driver's buffers, header first, in one system call: the kernel takes all of
//! it or nothing.
//!
//! What must hold: a chain is completed once its frame has been taken or dropped, in order; at most one is
//! held, while the TAP takes no frames or the rate limit lets none pass.

use super::tap::Tap;
use super::turn::{Side, starve};
use super::{HEADER_LEN, MAX_FRAME, Wait};
use crate::host_io::{IoVecs, Span};
use crate::throttle::Throttle;
use crate::virtio::{Broken, Chain, Queue};

/// A transmit queue that is started.
pub(super) struct Transmitter {
    queue: Queue,
    chain: Chain,
    /// `chain` has been taken, and its frame not yet been sent.
    held: bool,
    vecs: IoVecs,
}

impl Transmitter {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, chain: Chain::new(), held: false, vecs: IoVecs::new() }
    }

    /// Sends one frame, or drops it where there is no TAP; or says what it waits for.
    pub(super) fn step(
        &mut self,
        tap: Option<&Tap>,
        throttle: &mut Throttle,
    ) -> Result<Option<Wait>, Broken> {
        if !self.held && !self.queue.pop(&mut self.chain)? {
            return starve(&mut self.queue);
        }
        if !throttle.admits() {
            self.held = true;
            self.queue.stats().throttled.add(1);
            return Ok(Some(Wait::Clock));
        }
        let wait = tap.map_or(Err(None), |tap| self.send(tap));
        self.held = matches!(wait, Err(Some(_)));
        let payload = self.chain.readable_len().saturating_sub(HEADER_LEN);
        if !self.held {
            throttle.charge(payload as u64);
        }
        match wait {
            Ok(()) => self.queue.stats().bytes.add(payload as u64),
            Err(None) => self.queue.stats().errors.add(1),
            Err(wait) => return Ok(wait),
        }
        self.queue.complete(self.chain.head(), 0)?;
        Ok(None)
    }

    /// Gives the TAP the frame. An error says what to wait for with it; to be dropped where that is nothing.
    fn send(&mut self, tap: &Tap) -> Result<(), Option<Wait>> {
        let len = self.chain.readable_len();
        if !(HEADER_LEN..=MAX_FRAME).contains(&len) {
            log::debug!("a frame to send has {len} bytes");
            return Err(None);
        }
        let sent = self.vecs.writev(tap, self.queue.memory(), self.chain.readable(), Span::from(0));
        sent.map(|_| ()).map_err(|error| match error.raw_os_error() {
            Some(libc::EAGAIN) => Some(Wait::Tap),
            Some(libc::EBADFD) => Some(Wait::Gone),
            // The interface is down (EIO), the header is not true (EINVAL), the host is short of memory.
            _ => {
                log::debug!("a frame of {len} bytes was not sent: {error}");
                None
            }
        })
    }
}

impl Side for Transmitter {
    fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// A frame that has not been sent has not been taken.
    fn stop(mut self) -> Queue {
        self.queue.rewind(self.held.into());
        self.queue
    }
}
