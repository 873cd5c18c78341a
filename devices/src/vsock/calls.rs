//! Calls of the guest's to programs of the host's, from when they are made until they have a result.
//!
//! What must hold: calls to a port are tried in their order, one at a time, and each for a while where the program has no
//! room; so a program that accepts nothing costs a call each round, however many wait for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::mailbox::Call;

/// How long a round lasts: nothing tells when a program has room.
const DIAL_AGAIN: Duration = Duration::from_millis(5);

/// Calls without a result, in their order.
#[derive(Debug)]
pub(super) struct Calls {
    calls: Vec<Waiting>,
    /// How long each is tried.
    patience: Duration,
    /// When the next round begins, where one is to.
    at: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    call: Call,
    /// The broker is trying it.
    tried: bool,
    /// Set once it has had to wait.
    until: Option<Instant>,
}

impl Calls {
    pub fn new(patience: Duration) -> Self {
        Self { calls: Vec::new(), patience, at: None }
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Adds a call. True where it is to be tried now; otherwise others are before it.
    pub fn add(&mut self, call: Call) -> bool {
        let port = call.key.host_port;
        let tried = self.calls.iter().all(|waiting| waiting.call.key.host_port != port);
        self.calls.push(Waiting { call, tried, until: None });
        tried
    }

    /// A call that was tried has found no room, at the time `now`. True where it is given up.
    pub fn failed(&mut self, call: &Call, now: Instant) -> bool {
        let until = now.checked_add(self.patience);
        self.at = self.at.or_else(|| now.checked_add(DIAL_AGAIN));
        let Some(place) = self.place(call) else { return true };
        let over = self.calls.get_mut(place).is_none_or(|waiting| {
            waiting.tried = false;
            waiting.until = waiting.until.or(until);
            waiting.until.is_none_or(|until| until <= now)
        });
        if over {
            self.calls.remove(place);
        }
        over
    }

    /// A call has had its result. Gives the next one for its port, which is to be tried now.
    pub fn done(&mut self, call: &Call) -> Option<Call> {
        if let Some(place) = self.place(call) {
            self.calls.remove(place);
        }
        let port = call.key.host_port;
        let next = self.calls.iter_mut().find(|waiting| waiting.call.key.host_port == port)?;
        (!std::mem::replace(&mut next.tried, true)).then_some(next.call)
    }

    /// When the next [`round`](Self::round) is due.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Those to be tried now, and those whose time is over.
    pub fn round(&mut self, now: Instant) -> (Vec<Call>, Vec<Call>) {
        let (mut ports, mut again, mut over) = (BTreeSet::new(), Vec::new(), Vec::new());
        let until = now.checked_add(self.patience);
        self.calls.retain_mut(|waiting| {
            waiting.until = waiting.until.or(until);
            if !waiting.tried && waiting.until.is_none_or(|until| until <= now) {
                over.push(waiting.call);
                return false;
            }
            if ports.insert(waiting.call.key.host_port) && !std::mem::replace(&mut waiting.tried, true) {
                again.push(waiting.call);
            }
            true
        });
        // Those that wait behind others are to be looked at, too.
        self.at = if self.calls.is_empty() { None } else { now.checked_add(DIAL_AGAIN) };
        (again, over)
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.calls.clear();
        self.at = None;
    }

    fn place(&self, call: &Call) -> Option<usize> {
        self.calls.iter().position(|waiting| waiting.call.serial == call.serial)
    }
}
