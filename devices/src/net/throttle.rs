//! The rate limit of one direction of a card.
//!
//! The tokens are the card's: all its pairs take from them, and a reset does not bring them back. Each pair
//! has a timer of its own to wait with.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmm_sys_util::timerfd::TimerFd;

use crate::rate_limit::Limiter;

/// A pair's view of a limit.
pub(super) struct Throttle {
    limiter: Arc<Mutex<Limiter>>,
    timer: TimerFd,
}

impl Throttle {
    pub(super) fn new(limiter: Arc<Mutex<Limiter>>) -> io::Result<Self> {
        Ok(Self { limiter, timer: TimerFd::new().map_err(io::Error::from)? })
    }

    /// Whether a frame may pass now. If not, the timer says when to ask again.
    pub(super) fn admits(&mut self) -> bool {
        let wait = self.limiter().wait(Instant::now());
        let Some(wait) = wait else { return true };
        if let Err(error) = self.timer.reset(wait, None) {
            log::debug!("a rate limit is not kept: {error}");
            return true;
        }
        false
    }

    /// A frame with `bytes` of payload passes.
    pub(super) fn charge(&self, bytes: usize) {
        self.limiter().charge(bytes as u64);
    }

    /// Stops the timer, whether it has expired or not.
    pub(super) fn clear(&mut self) {
        if let Err(error) = self.timer.clear() {
            log::debug!("a timer was not stopped: {error}");
        }
    }

    /// What expires.
    pub(super) fn timer(&self) -> &TimerFd {
        &self.timer
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        // Nothing in there panics; if it did, the run has ended.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
