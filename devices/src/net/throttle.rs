//! The rate limit of one direction of a card.
//!
//! The tokens are the card's: all its pairs take from them, and a reset does not bring them back. Each pair waits
//! by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::rate_limit::Limiter;

/// A pair's view of a limit.
pub(super) struct Throttle {
    limiter: Arc<Mutex<Limiter>>,
    until: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(limiter: Arc<Mutex<Limiter>>) -> Self {
        Self { limiter, until: None }
    }

    /// Whether a frame may pass now. If not, [`until`](Self::until) says when to ask again.
    pub(super) fn admits(&mut self) -> bool {
        let now = Instant::now();
        let wait = self.limiter().wait(now);
        self.until = wait.and_then(|wait| now.checked_add(wait));
        self.until.is_none()
    }

    /// A frame with `bytes` of payload passes.
    pub(super) fn charge(&self, bytes: usize) {
        self.limiter().charge(bytes as u64);
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.until = None;
    }

    /// Until when there is a wait.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        // Nothing in there panics; if it did, the run has ended.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
