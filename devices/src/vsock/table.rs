//! All connections: found by their ports and by their slot, and whose turn it is to send to the guest.
//!
//! What must hold: there are at most as many as the caller said; each is at most once in the round; what is
//! promised to buffer for all of them together is bounded (see [`Table::window`]).

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::backlog::Backlog;
use super::connection::Connection;
use super::packet::Key;
use super::socket::Socket;

/// How much of what a guest sends on a connection may wait for its peer, as long as not many wait.
pub(super) const WINDOW: u32 = 256 << 10;
/// The same once all windows together have reached [`WINDOWS`].
pub(super) const SMALL_WINDOW: u32 = 16 << 10;
const WINDOWS: u64 = 32 << 20;

/// The first port that connections from the host come from: out of the way of the ports that anybody chooses.
pub(super) const FIRST_PORT: u32 = 1 << 30;
const LAST_PORT: u32 = (1 << 31) - 1;

/// A connection and what belongs to it on the host's side.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub connection: Connection,
    /// The socket; `None` before the broker has reached anyone, and after the peer has gone.
    pub stream: Option<Socket>,
    /// What the peer has not taken yet.
    pub backlog: Backlog,
    /// The socket may have something to read.
    pub readable: bool,
    /// The peer has closed a direction, so that there is an end to be read even when there was nothing.
    pub ending: bool,
    /// The peer has closed both directions.
    pub hung_up: bool,
    /// We wait for the socket to take more.
    pub waits_to_write: bool,
    /// How many packets to make of one read: grows while reads fill them.
    pub burst: usize,
    /// Bytes read in its turn so far.
    pub turn: usize,
    /// When the connection is given up, where it is closing.
    pub deadline: Option<Instant>,
    /// What of the sum of windows is this connection's.
    window: u32,
    in_round: bool,
}

impl Link {
    /// Whether there is something to be sent to the guest, and it has room for it.
    fn has_turn(&self) -> bool {
        self.connection.has_control() || self.may_read()
    }

    /// Whether to read from the socket for the guest.
    pub fn may_read(&self) -> bool {
        self.readable && self.stream.is_some() && self.connection.may_send()
    }
}

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Table {
    links: Vec<Option<Box<Link>>>,
    free: Vec<u32>,
    slots: BTreeMap<Key, u32>,
    round: VecDeque<u32>,
    most: usize,
    next_port: u32,
    next_serial: u64,
    windows: u64,
}

impl Table {
    /// An empty one, for at most `most` connections.
    pub fn new(most: usize) -> Self {
        Self { most, next_port: FIRST_PORT, ..Self::default() }
    }

    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.most
    }

    /// The slots that are in use.
    pub fn slots(&self) -> Vec<u32> {
        self.slots.values().copied().collect()
    }

    pub fn find(&self, key: Key) -> Option<u32> {
        self.slots.get(&key).copied()
    }

    pub fn get(&mut self, slot: u32) -> Option<&mut Link> {
        self.links.get_mut(usize::try_from(slot).ok()?)?.as_deref_mut()
    }

    /// The buffer to promise to the next connection: less to each once there are many, so that a guest whose
    /// peers all stop reading costs at most [`WINDOWS`] and a [`SMALL_WINDOW`] for each connection.
    fn window(&self) -> u32 {
        if self.windows < WINDOWS { WINDOW } else { SMALL_WINDOW }
    }

    /// Adds what `connection` makes of a serial number and a window; `None` where there is no place for it.
    pub fn add(&mut self, connection: impl FnOnce(u64, u32) -> Connection) -> Option<u32> {
        if self.is_full() {
            return None;
        }
        let (serial, window) = (self.next_serial, self.window());
        let connection = connection(serial, window);
        let key = connection.key;
        if self.slots.contains_key(&key) {
            return None;
        }
        let link = Box::new(Link { connection, burst: 1, window, ..Link::default() });
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.links.len()).ok()?;
                self.links.push(None);
                slot
            }
        };
        *self.links.get_mut(usize::try_from(slot).ok()?)? = Some(link);
        self.next_serial = serial.wrapping_add(1);
        self.windows = self.windows.saturating_add(window.into());
        self.slots.insert(key, slot);
        Some(slot)
    }

    pub fn remove(&mut self, slot: u32) -> Option<Box<Link>> {
        let link = self.links.get_mut(usize::try_from(slot).ok()?)?.take()?;
        if link.in_round {
            self.round.retain(|other| *other != slot);
        }
        self.slots.remove(&link.connection.key);
        self.windows = self.windows.saturating_sub(link.window.into());
        self.free.push(slot);
        Some(link)
    }

    /// The serial number of the next connection: all that are there have smaller ones.
    pub fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// A port of the host's for a connection to `guest_port`, unlike any other's.
    pub fn allocate(&mut self, guest_port: u32) -> Key {
        // There are far fewer connections than ports, so that a free one is found within as many steps as
        // there are connections.
        loop {
            let host_port = self.next_port;
            self.next_port = if host_port == LAST_PORT { FIRST_PORT } else { host_port.wrapping_add(1) };
            let key = Key { guest_port, host_port };
            if !self.slots.contains_key(&key) {
                return key;
            }
        }
    }

    /// Gives the connection a turn if it has something to send and none yet.
    pub fn schedule(&mut self, slot: u32) {
        let Some(link) = self.get(slot) else { return };
        if link.readable && link.connection.wants_data() {
            link.connection.ask_for_room();
        }
        if link.has_turn() && !link.in_round {
            link.in_round = true;
            self.round.push_back(slot);
        }
    }

    /// Lets the connection whose turn it was go on with it.
    pub fn keep_turn(&mut self, slot: u32) {
        if let Some(link) = self.get(slot).filter(|link| !link.in_round) {
            link.in_round = true;
            self.round.push_front(slot);
        }
    }

    /// Whether anyone has something to send.
    pub fn has_turn(&self) -> bool {
        !self.round.is_empty()
    }

    /// Whose turn it is. It is not in the round any more then.
    pub fn next_turn(&mut self) -> Option<u32> {
        let slot = self.round.pop_front()?;
        self.get(slot)?.in_round = false;
        Some(slot)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
