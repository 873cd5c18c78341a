//! The control queue (VIRTIO 1.2, section 5.1.6.5): the driver says how many pairs of queues it uses.
//!
//! A pair that is not in use is a disabled queue of the TAP, to which the kernel steers no frames. Enabling
//! and disabling happens on the first pair's thread, by descriptors of its own, while the others read and
//! write theirs: all of it is under the kernel's locks, a reader of a disabled queue finds it empty, and a
//! thread that waits for one is woken when there are frames again.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Wait;
use super::tap::Tap;
use super::turn::Side;
use crate::clock::Clock;
use crate::virtio::{Broken, Chain, Queue};

const CLASS_MQ: u8 = 4;
const MQ_VQ_PAIRS_SET: u8 = 0;

const OK: u8 = 0;
const ERR: u8 = 1;

/// How often the number of pairs may change. Each change takes the lock that all of the host's network
/// configuration shares, and waits for all of its CPUs; drivers change it when they come up.
const CHANGES: u32 = 16;
const CHANGES_IN: Duration = Duration::from_secs(1);

/// A control queue that is started.
pub(super) struct Control {
    queue: Queue,
    chain: Chain,
}

/// The pairs of queues of a TAP beyond the first, which is always enabled.
pub(super) struct Pairs {
    others: Vec<Other>,
    changes: u32,
    since: Instant,
    clock: Arc<Clock>,
}

struct Other {
    tap: Tap,
    enabled: bool,
}

impl Control {
    pub(super) fn new(queue: Queue) -> Self {
        Self { queue, chain: Chain::new() }
    }

    /// Answers one command.
    pub(super) fn turn(&mut self, pairs: Option<&mut Pairs>) -> Result<Wait, Broken> {
        self.queue.disable_kicks()?;
        if !self.queue.pop(&mut self.chain)? {
            return Ok(if self.queue.enable_kicks()? { Wait::Turn } else { Wait::Driver });
        }
        let answer = self.command().zip(pairs).and_then(|(count, pairs)| pairs.set(count).ok());
        let answer = if answer.is_some() { OK } else { ERR };
        if answer == ERR {
            self.queue.stats().errors.add(1);
        }
        // A chain without room for an answer gets none.
        let answered = self.chain.write(self.queue.memory(), 0, &[answer]).is_ok();
        self.queue.complete(self.chain.head(), answered.into())?;
        self.queue.publish()?;
        Ok(Wait::Turn)
    }

    /// The number of pairs that the driver wants; `None` where the command is another.
    fn command(&self) -> Option<u16> {
        let mut bytes = [0; 4];
        self.chain.read(self.queue.memory(), 0, &mut bytes).ok()?;
        let [class, command, low, high] = bytes;
        (class == CLASS_MQ && command == MQ_VQ_PAIRS_SET).then(|| u16::from_le_bytes([low, high]))
    }
}

impl Side for Control {
    fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    fn stop(self) -> Queue {
        self.queue
    }
}

impl Pairs {
    /// All pairs but the first, which are disabled.
    pub(super) fn new(others: Vec<Tap>, clock: Arc<Clock>) -> Self {
        let others = others.into_iter().map(|tap| Other { tap, enabled: false }).collect();
        Self { others, changes: 0, since: clock.now(), clock }
    }

    /// Only the first pair is in use: the driver is new.
    pub(super) fn only_first(&mut self) -> io::Result<()> {
        self.others.iter_mut().try_for_each(|other| other.set(false))
    }

    /// The first `count` pairs are in use.
    fn set(&mut self, count: u16) -> io::Result<()> {
        let others = usize::from(count).checked_sub(1).filter(|others| *others <= self.others.len());
        let others = others.ok_or(io::ErrorKind::InvalidInput)?;
        let mut wanted = self.others.iter().zip(0..).map(|(other, at)| (other.enabled, at < others));
        if wanted.all(|(enabled, wanted)| enabled == wanted) {
            return Ok(());
        }
        let now = self.clock.now();
        if now.saturating_duration_since(self.since) >= CHANGES_IN {
            (self.since, self.changes) = (now, 0);
        }
        if self.changes >= CHANGES {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.changes = self.changes.saturating_add(1);
        self.others.iter_mut().zip(0..).try_for_each(|(other, at)| other.set(at < others))
    }
}

impl Other {
    fn set(&mut self, enabled: bool) -> io::Result<()> {
        if self.enabled != enabled {
            self.tap.set_enabled(enabled)?;
            self.enabled = enabled;
        }
        Ok(())
    }
}
