//! How fast a device may be used: token buckets for bytes and for operations.
//!
//! Pure arithmetic on the [`Instant`]s it is given; who waits, and how, is the device's business. An operation
//! of any size passes where there is a token at all, and what it takes beyond that is a debt that has to be
//! refilled before the next one passes. So no size is impossible, and over any time at most
//! burst + size + rate x time + one operation pass.

use std::time::{Duration, Instant};

/// Limits of a device. One that is not given does not limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Bytes of payload.
    pub bytes: Option<Bucket>,
    /// Requests or frames.
    pub operations: Option<Bucket>,
}

/// A token bucket: full at first, refilled steadily, `size` tokens in each `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The most tokens it holds, and as many as are refilled in each `refill`.
    pub size: u64,
    /// How long an empty bucket takes to be full.
    pub refill: Duration,
    /// Tokens that are there at first beyond `size`, and are not refilled.
    pub burst: u64,
}

impl Bucket {
    /// `rate` tokens a second, and no more than those of a second at once.
    #[must_use]
    pub fn per_second(rate: u64) -> Self {
        Self { size: rate, refill: Duration::from_secs(1), burst: 0 }
    }
}

/// A limit that would let nothing pass, or does not limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {what} lets {size} pass in {refill:?}: neither may be zero")]
pub struct RateLimitError {
    /// What it limits: bytes or operations.
    pub what: &'static str,
    /// The bucket's size.
    pub size: u64,
    /// The time in which it is refilled.
    pub refill: Duration,
}

/// A [`RateLimit`] at work.
#[derive(Debug)]
pub(crate) struct Limiter {
    bytes: Option<Tokens>,
    operations: Option<Tokens>,
}

impl Limiter {
    /// Both buckets are full `now`.
    ///
    /// # Errors
    /// A bucket is of no size, or refilled in no time.
    pub(crate) fn new(limit: RateLimit, now: Instant) -> Result<Self, RateLimitError> {
        let tokens = |what, bucket: Option<Bucket>| match bucket {
            Some(Bucket { size, refill, .. }) if size == 0 || refill.is_zero() => {
                Err(RateLimitError { what, size, refill })
            }
            bucket => Ok(bucket.map(|bucket| Tokens::new(bucket, now))),
        };
        Ok(Self { bytes: tokens("bytes", limit.bytes)?, operations: tokens("operations", limit.operations)? })
    }

    /// The same, where the limit limits anything.
    pub(crate) fn of(limit: RateLimit, now: Instant) -> Result<Option<Self>, RateLimitError> {
        (limit != RateLimit::default()).then(|| Self::new(limit, now)).transpose()
    }

    /// How long the next operation has to wait; `None` where it may pass.
    pub(crate) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let each = self.bytes.iter_mut().chain(&mut self.operations);
        each.filter_map(|tokens| tokens.wait(now)).max()
    }

    /// Takes the tokens of one operation that passes.
    pub(crate) fn charge(&mut self, bytes: u64) {
        self.bytes.iter_mut().for_each(|tokens| tokens.take(bytes));
        self.operations.iter_mut().for_each(|tokens| tokens.take(1));
    }
}

#[derive(Debug)]
struct Tokens {
    bucket: Bucket,
    /// How many there are; a debt where it is below zero.
    balance: i128,
    /// Up to when they have been refilled.
    refilled: Instant,
}

impl Tokens {
    fn new(bucket: Bucket, now: Instant) -> Self {
        let balance = i128::from(bucket.size).saturating_add(bucket.burst.into());
        Self { bucket, balance, refilled: now }
    }

    fn take(&mut self, count: u64) {
        self.balance = self.balance.saturating_sub(count.into());
    }

    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        if self.balance > 0 {
            return None;
        }
        let missing = 1u128.saturating_add(self.balance.unsigned_abs());
        let wait = self.duration_of(missing);
        // Never zero, or whoever waits would spin.
        Some(wait.saturating_sub(now.saturating_duration_since(self.refilled)).max(Duration::from_nanos(1)))
    }

    fn refill(&mut self, now: Instant) {
        let size = i128::from(self.bucket.size);
        if self.balance >= size {
            // Full, or with some of the burst left: time adds nothing.
            self.refilled = self.refilled.max(now);
            return;
        }
        let elapsed = now.saturating_duration_since(self.refilled);
        let gained = elapsed.as_nanos().saturating_mul(self.bucket.size.into());
        let gained = gained.checked_div(self.nanos()).unwrap_or(0);
        let balance = self.balance.saturating_add(i128::try_from(gained).unwrap_or(i128::MAX));
        if balance >= size {
            (self.balance, self.refilled) = (size, now);
        } else if gained > 0 {
            // Only the time of whole tokens is used up; the rest counts for the next one.
            self.balance = balance;
            self.refilled = self.refilled.checked_add(self.duration_of(gained)).unwrap_or(now);
        }
    }

    /// How long `count` tokens take, rounded up.
    fn duration_of(&self, count: u128) -> Duration {
        let nanos = count.saturating_mul(self.nanos()).div_ceil(u128::from(self.bucket.size).max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The time of a refill, which is not zero.
    fn nanos(&self) -> u128 {
        self.bucket.refill.as_nanos().max(1)
    }
}

#[cfg(test)]
#[path = "rate_limit_tests.rs"]
mod tests;
