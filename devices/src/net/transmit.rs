//! From the driver to the TAP.
//!
//! A frame is written from the driver's buffers, header first, in one system call: the kernel takes all of
//! it or nothing.
//!
//! What must hold: a chain is completed once its frame has been taken or dropped, in order; at most one is
//! held, while the TAP takes no frames or the rate limit lets none pass.

use super::tap::Tap;
use super::{BATCH, HEADER_LEN, MAX_FRAME, Wait};
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

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// The queue, as if a frame that has not been sent had not been taken.
    pub(super) fn stop(mut self) -> Queue {
        self.queue.rewind(self.held.into());
        self.queue
    }

    /// Sends frames, as many as the queue has entries at most; drops them where there is no TAP.
    pub(super) fn turn(
        &mut self,
        tap: Option<&Tap>,
        mut throttle: Option<&mut Throttle>,
    ) -> Result<Wait, Broken> {
        self.queue.disable_kicks()?;
        for step in 1..=self.queue.size() {
            if let Some(wait) = self.step(tap, throttle.as_deref_mut())? {
                self.queue.publish()?;
                return Ok(wait);
            }
            if step.is_multiple_of(BATCH) {
                self.queue.publish()?;
            }
        }
        self.queue.publish()?;
        Ok(Wait::Turn)
    }

    /// Sends one frame; or says what it waits for.
    fn step(
        &mut self,
        tap: Option<&Tap>,
        mut throttle: Option<&mut Throttle>,
    ) -> Result<Option<Wait>, Broken> {
        if !self.held && !self.queue.pop(&mut self.chain)? {
            if self.queue.enable_kicks()? {
                self.queue.disable_kicks()?;
                return Ok(None);
            }
            return Ok(Some(Wait::Driver));
        }
        if throttle.as_mut().is_some_and(|throttle| !throttle.admits()) {
            self.held = true;
            self.queue.stats().throttled.add(1);
            return Ok(Some(Wait::Clock));
        }
        let wait = tap.map_or(Err(None), |tap| self.send(tap));
        self.held = matches!(wait, Err(Some(_)));
        let payload = self.chain.readable_len().saturating_sub(HEADER_LEN);
        if !self.held {
            throttle.inspect(|throttle| throttle.charge(payload as u64));
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
