//! What the two threads of the device say to each other, and how: a channel, and an eventfd that wakes the
//! other side.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use vmm_sys_util::eventfd::EventFd;

use crate::eventfd;

use super::packet::Key;

/// What the worker asks of the broker.
#[derive(Debug)]
pub(super) enum Order {
    /// The guest connects to a port: who listens there?
    Dial { key: Key, serial: u64 },
    /// The device was reset: nothing that was ordered before is wanted any more.
    Forget,
}

/// What the broker hands to the worker. All sockets are non-blocking.
#[derive(Debug)]
pub(super) enum Delivery {
    /// The answer to a [`Order::Dial`].
    Dialed { key: Key, serial: u64, stream: io::Result<UnixStream> },
    /// A program on the host connects to a port of the guest's.
    Client { guest_port: u32, stream: UnixStream },
}

/// The end that things are put into.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    sender: Sender<T>,
    wake: Arc<EventFd>,
    waiting: Arc<AtomicUsize>,
}

/// The end that things are taken out of.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    receiver: Receiver<T>,
    /// Written for each thing that is put in. To be waited for edge-triggered: it is never read.
    pub wake: Arc<EventFd>,
    waiting: Arc<AtomicUsize>,
}

/// A mailbox's two ends.
pub(super) fn pair<T>() -> io::Result<(Outbox<T>, Inbox<T>)> {
    let (sender, receiver) = mpsc::channel();
    let wake = Arc::new(eventfd()?);
    let waiting = Arc::default();
    Ok((
        Outbox { sender, wake: Arc::clone(&wake), waiting: Arc::clone(&waiting) },
        Inbox { receiver, wake, waiting },
    ))
}

impl<T> Outbox<T> {
    /// Puts `thing` in. It is dropped where the other side has ended, and with it all that it worked for.
    pub fn put(&self, thing: T) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(thing).is_ok() {
            // It fails only where the counter is at its maximum, and then there is an edge still to be seen.
            let _: io::Result<()> = self.wake.write(1);
        }
    }

    /// How many things the other side has not taken yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl<T> Inbox<T> {
    /// Takes the next thing.
    pub fn take(&self) -> Option<T> {
        let thing = self.receiver.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(thing)
    }
}
