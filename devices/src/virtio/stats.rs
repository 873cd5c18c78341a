//! What is counted of a device while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` back.
    pub(super) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number as it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted of a queue since the device was built. A reset does not clear it.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Times the device's thread was woken for the queue.
    pub kicks: Counter,
    /// Chains taken.
    pub chains: Counter,
    /// Bytes of payload moved either way.
    pub bytes: Counter,
    /// Interrupts raised.
    pub interrupts: Counter,
    /// Requests that failed and frames that were dropped.
    pub errors: Counter,
    /// Times the rate limit made the queue wait.
    pub throttled: Counter,
}

/// A queue's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueCounts {
    /// Times the device's thread was woken for the queue.
    pub kicks: u64,
    /// Descriptor chains taken.
    pub chains: u64,
    /// Bytes of payload moved either way.
    pub bytes: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Requests that failed and frames that were dropped.
    pub errors: u64,
    /// Times the rate limit made the queue wait.
    pub throttled: u64,
}

impl QueueStats {
    /// All of them now.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        QueueCounts {
            kicks: self.kicks.get(),
            chains: self.chains.get(),
            bytes: self.bytes.get(),
            interrupts: self.interrupts.get(),
            errors: self.errors.get(),
            throttled: self.throttled.get(),
        }
    }
}
