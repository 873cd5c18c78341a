//! A rate limit at work: who shares it, and until when somebody waits for it.
//!
//! The tokens are the device's: all its queues take from them, or a guest would have as many times as much as it uses
//! queues; and a reset does not bring them back. Each queue waits by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::rate_limit::Limiter;

/// A limit, for all queues that it is for.
#[derive(Debug)]
pub(crate) struct Limit {
    limiter: Mutex<Limiter>,
    clock: Arc<Clock>,
}

impl Limit {
    pub(crate) fn new(limiter: Limiter, clock: Arc<Clock>) -> Self {
        Self { limiter: Mutex::new(limiter), clock }
    }

    fn lock(&self) -> MutexGuard<'_, Limiter> {
        // Nothing in there panics; if it did, the run has ended.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A queue's view of a limit, where there is one: without, all may pass.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    limit: Option<Arc<Limit>>,
    until: Option<Instant>,
}

impl Throttle {
    pub(crate) fn new(limit: Option<Arc<Limit>>) -> Self {
        Self { limit, until: None }
    }

    /// Whether an operation may pass now. If not, the queue waits from now on.
    pub(crate) fn admits(&mut self) -> bool {
        let Some(limit) = &self.limit else { return true };
        let now = limit.clock.now();
        let wait = limit.lock().wait(now);
        self.until = wait.and_then(|wait| now.checked_add(wait));
        self.until.is_none()
    }

    /// An operation with `bytes` of payload passes.
    pub(crate) fn charge(&self, bytes: u64) {
        if let Some(limit) = &self.limit {
            limit.lock().charge(bytes);
        }
    }

    /// Whether the queue waits.
    pub(crate) fn waits(&self) -> bool {
        self.until.is_some()
    }

    /// How long it has to wait yet, where it does.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let (until, limit) = (self.until?, self.limit.as_ref()?);
        Some(until.saturating_duration_since(limit.clock.now()))
    }

    /// Whether its wait is over: then it does not wait any more.
    pub(crate) fn ends(&mut self) -> bool {
        let Some(limit) = &self.limit else { return false };
        self.until.take_if(|until| *until <= limit.clock.now()).is_some()
    }

    /// The queue does not wait any more.
    pub(crate) fn clear(&mut self) {
        self.until = None;
    }
}
