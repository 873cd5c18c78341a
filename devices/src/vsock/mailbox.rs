//! What the two threads of the device say to each other, and how: a list, and an eventfd that wakes the other side.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::packet::Key;
use crate::eventfd;

/// Clients of the host that have not said yet where they want to, at once: more wait in the socket's queue.
pub(super) const SEATS: usize = 1024;

/// What the worker asks of the broker.
#[derive(Debug)]
pub(super) enum Order {
    /// The guest connects to a port: who listens there?
    Dial(Call),
    /// To look for clients again, after a [`Delivery::Held`].
    Accept,
    /// A socket that nobody needs any more.
    Close(UnixStream),
}

/// A guest's wish to reach a program of the host's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub key: Key,
    pub serial: u64,
}

/// What the broker hands to the worker. All sockets are non-blocking.
#[derive(Debug)]
pub(super) enum Delivery {
    /// The answer to an [`Order::Dial`].
    Dialed { call: Call, stream: io::Result<UnixStream> },
    /// A program on the host connects.
    Client { stream: UnixStream, seat: Seat },
    /// No client is accepted before an [`Order::Accept`]: there are no seats, or no descriptors.
    Held,
}

/// A mailbox, in the hands of both. What is in it lives as long as either of them has it: a socket on its way to be
/// closed is never closed by the worker's thread, whoever ends first.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    things: Mutex<VecDeque<T>>,
    /// Written for each thing that is put in. To be waited for edge-triggered: it is never read.
    pub wake: EventFd,
}

impl<T> Mailbox<T> {
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { things: Mutex::default(), wake: eventfd()? }))
    }

    pub fn put(&self, thing: T) {
        self.lock().push_back(thing);
        // It fails only where the counter is at its maximum, and then there is an edge still to be seen.
        let _: io::Result<()> = self.wake.write(1);
    }

    /// Takes the next thing.
    pub fn take(&self) -> Option<T> {
        self.lock().pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // Nothing in there panics; if it did, the run has ended.
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many seats are taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Seats(Arc<AtomicUsize>);

/// One client's place, from when it is accepted until it has said where it wants to.
#[derive(Debug)]
pub(super) struct Seat(Seats);

impl Seats {
    /// A free one. For one thread alone: another could take the last one meanwhile.
    pub fn take(&self) -> Option<Seat> {
        if self.0.load(Ordering::Relaxed) >= SEATS {
            return None;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
