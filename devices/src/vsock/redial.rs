//! Calls of the guest's to programs that had no room a moment ago: each is tried again for a while.
//!
//! What must hold: of each port, one call at most is tried in a round, so that a program that accepts nothing costs a
//! call each round, however many wait for it; once it takes one, the next is tried at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::mailbox::Call;

/// How long a round lasts: nothing tells when a program has room.
const DIAL_AGAIN: Duration = Duration::from_millis(5);

/// Calls that wait.
#[derive(Debug, Default)]
pub(super) struct Redials {
    calls: Vec<Call>,
    /// When the next round begins.
    at: Option<Instant>,
}

impl Redials {
    /// Keeps a call for the next round, at the time `now`; gives it back where it has been tried for long enough.
    pub fn keep(&mut self, call: Call, now: Instant, patience: Duration) -> Option<Call> {
        let until = call.until.or_else(|| now.checked_add(patience));
        if until.is_none_or(|until| until <= now) {
            return Some(call);
        }
        self.calls.push(Call { until, ..call });
        self.at = self.at.or_else(|| now.checked_add(DIAL_AGAIN));
        None
    }

    /// When the next [`round`](Self::round) is due.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Those to be tried now, and those whose time is over.
    pub fn round(&mut self, now: Instant) -> (Vec<Call>, Vec<Call>) {
        let (mut ports, mut again, mut over) = (BTreeSet::new(), Vec::new(), Vec::new());
        self.calls.retain(|call| {
            if call.until.is_none_or(|until| until <= now) {
                over.push(*call);
            } else if ports.insert(call.key.host_port) {
                again.push(*call);
            } else {
                return true;
            }
            false
        });
        self.at = if self.calls.is_empty() { None } else { now.checked_add(DIAL_AGAIN) };
        (again, over)
    }

    /// The next one for a port that has room.
    pub fn next_for(&mut self, port: u32) -> Option<Call> {
        let place = self.calls.iter().position(|call| call.key.host_port == port)?;
        Some(self.calls.remove(place))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
