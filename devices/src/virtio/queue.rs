//! A started virtqueue: what a device sees of a split ring (VIRTIO 1.2, section 2.7).
//!
//! `virtio-queue` walks rings and chains, within bounds; here is what it leaves open. It ends a chain that
//! breaks the rules as if it had simply ended: a chain is taken here only if its last descriptor says that
//! it is the last. And it publishes each used element by itself: here they are staged, and published
//! together, as a frame that takes several buffers has to be, and as is cheaper for all others.
//!
//! What must hold:
//! - A queue exists only while the driver has it ready and the device runs, and all its rings were inside
//!   guest memory, aligned and apart from one another when it was made.
//! - After a [`Broken`] the queue is not touched again until it is started anew.
//! - At most as many chains are outstanding as the queue has entries.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue as Ring, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::Memory;
use super::chain::{Buffer, Chain};
use super::line::Line;
use super::stats::QueueStats;

/// The driver broke a rule of the rings: the device has to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The available ring claims more chains than the queue has entries, or a ring is out of reach.
    #[error("the available ring's index is out of range")]
    AvailableIndex,
    /// A chain begins at a descriptor that is not there, or breaks off: it loops, is longer than the queue,
    /// leaves the table, or has a bad indirect table.
    #[error("the chain at descriptor {head} does not end")]
    Chain {
        /// Its first descriptor.
        head: u16,
    },
    /// A buffer is not in guest memory.
    #[error("a buffer of {len} bytes at {addr:#x} is not in memory")]
    Address {
        /// Guest physical address.
        addr: u64,
        /// Length in bytes.
        len: u32,
    },
    /// A buffer for the device to read follows one for it to write.
    #[error("the chain at descriptor {head} has a readable buffer behind a writable one")]
    Order {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain has more buffers than one system call takes.
    #[error("the chain at descriptor {head} has too many buffers")]
    TooLong {
        /// Its first descriptor.
        head: u16,
    },
    /// A chain lacks what every request of the device has.
    #[error("the chain at descriptor {head} is no request: {what}")]
    Request {
        /// Its first descriptor.
        head: u16,
        /// What is missing.
        what: &'static str,
    },
    /// The used ring could not be written.
    #[error("the used ring is out of reach")]
    UsedRing,
}

/// A queue as the driver set it up, and how far it has been worked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Entries: a power of two.
    pub size: u16,
    /// Whether the driver has declared it ready.
    pub ready: bool,
    /// Guest physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest physical address of the available ring.
    pub avail_ring: u64,
    /// Guest physical address of the used ring.
    pub used_ring: u64,
    /// The next entry of the available ring to be taken.
    pub next_avail: u16,
    /// The next entry of the used ring to be written.
    pub next_used: u16,
}

/// Why a queue cannot be started as the driver described it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The number of entries.
    #[error("{size} entries are not a power of two up to {max}")]
    Size {
        /// What the driver wrote.
        size: u32,
        /// The most there can be.
        max: u16,
    },
    /// A ring is misaligned, not in memory, or overlaps another.
    #[error("the {ring} at {addr:#x} is misaligned, outside memory or overlaps another ring")]
    Place {
        /// Which.
        ring: &'static str,
        /// Its guest physical address.
        addr: u64,
    },
}

/// A started queue.
#[derive(Debug)]
pub struct Queue {
    index: u16,
    ring: Ring,
    memory: Arc<Memory>,
    line: Arc<Line>,
    stats: Arc<QueueStats>,
    /// The used index that the driver knows of; those up to `ring.next_used()` are staged.
    published: Wrapping<u16>,
    /// The used index at the last interrupt decision.
    decided: Wrapping<u16>,
}

impl Queue {
    /// Starts the queue that the driver described in `state`.
    pub(super) fn start(
        index: u16,
        max: u16,
        state: &QueueState,
        event_idx: bool,
        memory: Arc<Memory>,
        line: Arc<Line>,
        stats: Arc<QueueStats>,
    ) -> Result<Self, QueueError> {
        check(state, max, &memory)?;
        let size_error = QueueError::Size { size: state.size.into(), max };
        let mut ring = Ring::new(max).map_err(|_| size_error)?;
        ring.try_set_size(state.size).map_err(|_| size_error)?;
        let place = |ring, addr| move |_| QueueError::Place { ring, addr };
        ring.try_set_desc_table_address(GuestAddress(state.desc_table))
            .map_err(place(DESC_TABLE, state.desc_table))?;
        ring.try_set_avail_ring_address(GuestAddress(state.avail_ring))
            .map_err(place(AVAIL_RING, state.avail_ring))?;
        ring.try_set_used_ring_address(GuestAddress(state.used_ring))
            .map_err(place(USED_RING, state.used_ring))?;
        ring.set_next_avail(state.next_avail);
        ring.set_next_used(state.next_used);
        ring.set_event_idx(event_idx);
        ring.set_ready(true);
        let next_used = Wrapping(state.next_used);
        Ok(Self { index, ring, memory, line, stats, published: next_used, decided: next_used })
    }

    /// Which of the device's queues this is.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// How many chains can be outstanding.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.ring.size()
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// What is counted of this queue.
    #[must_use]
    pub fn stats(&self) -> &QueueStats {
        &self.stats
    }

    /// Takes the next chain; false where the driver has made no more available.
    ///
    /// # Errors
    /// The driver broke the rules.
    pub fn pop(&mut self, chain: &mut Chain) -> Result<bool, Broken> {
        let memory = &*self.memory;
        let mut available = self.ring.iter(memory).map_err(|_| Broken::AvailableIndex)?;
        let Some(descriptors) = available.next() else { return Ok(false) };
        let head = descriptors.head_index();
        chain.begin(head);
        // The iterator is bounded by the size of the table it walks, and `push` by MAX_BUFFERS.
        let mut ended = false;
        for descriptor in descriptors {
            let buffer = Buffer { addr: descriptor.addr(), len: descriptor.len() };
            chain.push(memory, buffer, descriptor.is_write_only())?;
            ended = !descriptor.has_next();
        }
        if !ended {
            return Err(Broken::Chain { head });
        }
        self.stats.chains.add(1);
        Ok(true)
    }

    /// Puts the last `count` chains back, in order, as if they had not been taken. None taken before them
    /// may be outstanding that was not completed in order.
    pub fn rewind(&mut self, count: u16) {
        self.ring.set_next_avail(self.ring.next_avail().wrapping_sub(count));
        self.stats.chains.sub(count.into());
    }

    /// Gives a chain back, with how many bytes were written to it from its beginning on. The driver learns
    /// of it when [`publish`](Self::publish) is called.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn complete(&mut self, head: u16, written: u32) -> Result<(), Broken> {
        let next = self.ring.next_used();
        // The size is a power of two.
        let slot = next & self.ring.size().wrapping_sub(1);
        let at = u64::from(slot).saturating_mul(USED_ELEMENT_LEN);
        let addr = self.ring.used_ring().checked_add(USED_HEADER_LEN.saturating_add(at));
        let element = u64::from(head) | u64::from(written) << 32;
        let written = addr.map(|addr| self.memory.write_slice(&element.to_le_bytes(), GuestAddress(addr)));
        if !matches!(written, Some(Ok(()))) {
            return Err(Broken::UsedRing);
        }
        self.ring.set_next_used(next.wrapping_add(1));
        Ok(())
    }

    /// Shows the driver all completed chains, and interrupts it if it wants to know.
    ///
    /// # Errors
    /// A ring is out of reach.
    pub fn publish(&mut self) -> Result<(), Broken> {
        let next = Wrapping(self.ring.next_used());
        if next == self.published {
            return Ok(());
        }
        // Release: whoever sees the index sees the elements and the buffers' bytes.
        let index = self.ring.used_ring().checked_add(2).map(GuestAddress).ok_or(Broken::UsedRing)?;
        self.memory.store(next.0.to_le(), index, Ordering::Release).map_err(|_| Broken::UsedRing)?;
        self.published = next;
        // The index has to be visible before we look whether the driver wants to hear of it; the driver does
        // the two in the other order.
        fence(Ordering::SeqCst);
        if self.wants_interrupt(next)? {
            self.stats.interrupts.add(1);
            self.line.used();
        }
        self.decided = next;
        Ok(())
    }

    fn wants_interrupt(&self, next: Wrapping<u16>) -> Result<bool, Broken> {
        let avail = self.ring.avail_ring();
        let load = |offset: u64| {
            let addr = avail.checked_add(offset).map(GuestAddress).ok_or(Broken::AvailableIndex)?;
            let value: u16 = self.memory.load(addr, Ordering::Relaxed).map_err(|_| Broken::AvailableIndex)?;
            Ok(u16::from_le(value))
        };
        if !self.ring.event_idx_enabled() {
            return Ok(load(0)? & AVAIL_NO_INTERRUPT == 0);
        }
        let ring_len = u64::from(self.ring.size()).saturating_mul(AVAIL_ELEMENT_LEN);
        let event = Wrapping(load(AVAIL_HEADER_LEN.saturating_add(ring_len))?);
        // Section 2.7.10: whether the index passed `event` since the last decision.
        Ok(next - event - Wrapping(1) < next - self.decided)
    }

    /// Asks the driver not to kick, while the device looks at the ring anyway.
    ///
    /// # Errors
    /// The used ring cannot be written.
    pub fn disable_kicks(&mut self) -> Result<(), Broken> {
        self.ring.disable_notification(&*self.memory).map_err(|_| Broken::UsedRing)
    }

    /// Asks the driver to kick; true where it has made chains available meanwhile, and may not kick for them.
    ///
    /// # Errors
    /// A ring is out of reach.
    pub fn enable_kicks(&mut self) -> Result<bool, Broken> {
        self.ring.enable_notification(&*self.memory).map_err(|_| Broken::AvailableIndex)
    }

    /// How far the queue has been worked through.
    #[must_use]
    pub fn state(&self) -> QueueState {
        QueueState {
            size: self.ring.size(),
            ready: true,
            desc_table: self.ring.desc_table(),
            avail_ring: self.ring.avail_ring(),
            used_ring: self.ring.used_ring(),
            next_avail: self.ring.next_avail(),
            next_used: self.published.0,
        }
    }
}

const DESC_TABLE: &str = "descriptor table";
const AVAIL_RING: &str = "available ring";
const USED_RING: &str = "used ring";

const DESCRIPTOR_LEN: u64 = 16;
const AVAIL_HEADER_LEN: u64 = 4;
const AVAIL_ELEMENT_LEN: u64 = 2;
const USED_HEADER_LEN: u64 = 4;
const USED_ELEMENT_LEN: u64 = 8;
/// The event index at the end of either ring.
const EVENT_LEN: u64 = 2;
const AVAIL_NO_INTERRUPT: u16 = 1;

/// Checks a queue as the driver described it.
pub(super) fn check(state: &QueueState, max: u16, memory: &Memory) -> Result<(), QueueError> {
    if !state.size.is_power_of_two() || state.size > max {
        return Err(QueueError::Size { size: state.size.into(), max });
    }
    let size = u64::from(state.size);
    let ring_len = |header: u64, element: u64| {
        header.saturating_add(size.saturating_mul(element)).saturating_add(EVENT_LEN)
    };
    let rings = [
        (DESC_TABLE, state.desc_table, size.saturating_mul(DESCRIPTOR_LEN), 16),
        (AVAIL_RING, state.avail_ring, ring_len(AVAIL_HEADER_LEN, AVAIL_ELEMENT_LEN), 2),
        (USED_RING, state.used_ring, ring_len(USED_HEADER_LEN, USED_ELEMENT_LEN), 4),
    ];
    for (place, (ring, addr, len, align)) in rings.into_iter().enumerate() {
        let bytes = usize::try_from(len).unwrap_or(usize::MAX);
        let in_memory = memory.get_slice(GuestAddress(addr), bytes).is_ok();
        // In memory, so that the ends do not overflow.
        let apart = rings.iter().skip(place.saturating_add(1)).all(|(_, other, other_len, _)| {
            addr.saturating_add(len) <= *other || other.saturating_add(*other_len) <= addr
        });
        if !in_memory || !apart || !addr.is_multiple_of(align) {
            return Err(QueueError::Place { ring, addr });
        }
    }
    Ok(())
}
