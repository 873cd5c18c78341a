//! The seam between the transport and a device.
//!
//! A device is a description ([`Device`]) and one or more [`Card`]s, each on a thread of its own. A card
//! never sees a register, a feature being negotiated, or a queue that is not started: it is activated,
//! handed started queues, and told when there is something to do. So it works the same under another
//! transport, and a pause or a snapshot needs nothing of it but to give its queues back.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use event_manager::{EventOps, EventSet};

use super::line::Line;
use super::queue::{Broken, Queue};

/// The kinds of devices, by the numbers of VIRTIO 1.2, section 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A network card.
    Net = 1,
    /// A disk.
    Block = 2,
    /// A socket to the host.
    Vsock = 19,
}

/// What a card's thread does on the host: whoever starts the thread can tell from it what it has to be able to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Reads and writes a disk's file.
    Disk,
    /// The same, mostly by an io_uring.
    DiskRing,
    /// Passes frames to and from a TAP.
    Frames,
    /// Moves bytes between the guest and sockets.
    Streams,
    /// Opens sockets.
    Broker,
}

/// A device, built, and not yet behind a transport.
pub struct Device {
    /// What it is.
    pub kind: Kind,
    /// The features it offers, without those of transport and rings.
    pub features: u64,
    /// Its configuration space.
    pub config: Vec<u8>,
    /// The one byte of the configuration that the driver may write, by its offset, if there is one.
    pub writable: Option<(usize, Arc<AtomicU8>)>,
    /// The most entries of each of its queues; powers of two.
    pub queue_sizes: Vec<u16>,
    /// Who does the work, and on which queues. Each queue is one card's.
    pub cards: Vec<(Vec<u16>, Box<dyn Card>)>,
    /// The back end, where it can change.
    pub back_end: Option<Arc<dyn BackEnd>>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("kind", &self.kind)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// What a device's cards have in common, as seen by the embedder's threads.
pub trait BackEnd: std::fmt::Debug + Send + Sync {
    /// Looks what has changed. The cards are told to compare after that; they have no calls to look themselves.
    fn look_again(&self);
}

/// A device's work, or one thread's part of it. All methods are called on that thread.
///
/// The order of calls: `register`, `prepare`, once; `activate`, `start_queue` for each queue that the driver has set
/// up; then `kicked`
/// and `ready` as things happen; `stop_queue` for each queue, `deactivate`; and again from the beginning.
pub trait Card: Send {
    /// What it does on the host.
    fn job(&self) -> Job;

    /// The thread has begun, and is not jailed yet: here is made what later calls may not make, and what only the
    /// thread itself can make.
    fn prepare(&mut self) {}

    /// How many bytes of its heap the card may come to use, where they are many: it can have no more later, but for
    /// each allocation at least a page.
    fn heap(&self) -> usize {
        0
    }

    /// Registers what is waited for at all times, edge-triggered. It is not called for these while it is not
    /// activated.
    ///
    /// # Errors
    /// What the host said: the thread then ends at once.
    fn register(&mut self, events: &mut Events<'_, '_>) -> io::Result<()> {
        let _ = events;
        Ok(())
    }

    /// The driver has accepted `features` and set DRIVER_OK.
    ///
    /// # Errors
    /// The back end refuses: the device then needs a reset.
    fn activate(&mut self, features: u64, line: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()>;

    /// A queue is started. The card is `kicked` for it at once, whether the driver has kicked or not.
    fn start_queue(&mut self, queue: Queue, events: &mut Events<'_, '_>);

    /// Gives a queue back, once nothing of it is in flight any more: no guest memory that its chains named
    /// is touched after the return. `None` where the card does not have it.
    fn stop_queue(&mut self, index: u16, events: &mut Events<'_, '_>) -> Option<Queue>;

    /// The device is reset, or will not run any more; its queues have been stopped.
    fn deactivate(&mut self, events: &mut Events<'_, '_>);

    /// The driver has made chains available in a queue.
    ///
    /// # Errors
    /// The driver broke the rules: the card's queues are stopped and it is deactivated at once, and the device
    /// needs a reset.
    fn kicked(&mut self, index: u16, events: &mut Events<'_, '_>) -> Result<(), Broken>;

    /// A descriptor that the card has registered is ready.
    ///
    /// # Errors
    /// As for [`kicked`](Self::kicked).
    fn ready(&mut self, token: u32, ready: EventSet, events: &mut Events<'_, '_>) -> Result<(), Broken>;

    /// How long the card can do without being called, should nothing happen to it: for ever where `None`. Asked
    /// before each wait.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// That time is over.
    ///
    /// # Errors
    /// As for [`kicked`](Self::kicked).
    fn due(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        let _ = events;
        Ok(())
    }

    /// The back end has been looked at again: its size may have changed. Called at any time.
    fn rescan(&mut self) {}
}

/// Where a card registers the descriptors it waits for.
pub struct Events<'a, 'b>(pub(super) &'a mut EventOps<'b>);

/// Tokens from here on are the worker's own.
pub(super) const RESERVED_TOKENS: u32 = 1 << 31;

impl Events<'_, '_> {
    /// Waits for `events` of `fd`, and calls [`Card::ready`] with `token` (below 2^31) then.
    ///
    /// # Errors
    /// What the host said.
    pub fn add(&mut self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        let token = token & !RESERVED_TOKENS;
        self.0.add(event_manager::Events::with_data(fd, token, events)).map_err(io::Error::other)
    }

    /// Waits for other events of a descriptor that has been added.
    ///
    /// # Errors
    /// What the host said.
    pub fn modify(&mut self, fd: &impl AsRawFd, token: u32, events: EventSet) -> io::Result<()> {
        let token = token & !RESERVED_TOKENS;
        self.0.modify(event_manager::Events::with_data(fd, token, events)).map_err(io::Error::other)
    }

    /// Waits no longer; a descriptor that was not added is none to wait for.
    pub fn remove(&mut self, fd: &impl AsRawFd) {
        let _: event_manager::Result<()> = self.0.remove(event_manager::Events::empty(fd));
    }
}
