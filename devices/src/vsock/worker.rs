//! The worker: the thread that speaks to the guest. It moves bytes between queues and sockets that the broker
//! has handed over, and opens and closes none itself.
//!
//! What must hold:
//! - Nothing here waits: a socket that takes or gives nothing costs its own connection only.
//! - Every descriptor is waited for edge-triggered, and what an edge said is kept until a system call says
//!   otherwise. So a guest or a peer that is slow makes no thread spin.
//! - A connection is removed from what is waited for before its socket is closed.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::EventSet;
use log::Level;
use vmm_sys_util::eventfd::EventFd;

use super::calls::Calls;
use super::connection::{Connection, End};
use super::lobby::{Guided, Lobby};
use super::mailbox::{Call, Delivery, Mailbox, Order, SEATS};
use super::packet::Header;
use super::receive::BURST;
use super::socket::Socket;
use super::spec::Timeouts;
use super::table::{Link, Table};
use crate::clock::Clock;
use crate::eventfd;
use crate::host_io::IoVecs;
use crate::virtio::{Broken, Buffer, Card, Chain, Events, Job, Line, Queue};

/// The queue of packets for the guest.
pub(super) const RX: u16 = 0;
/// The queue of packets from the guest.
pub(super) const TX: u16 = 1;
/// The queue of events, of which there is one kind, TRANSPORT_RESET: the place where a device that is
/// restored from a snapshot tells the guest that all its connections are over. Nothing else is said there.
pub(super) const EVENT: u16 = 2;

const DELIVERIES: u32 = 0;
const AGAIN: u32 = 1;
const FIRST_LINK: u32 = 16;
/// Tokens from here on are clients' in the lobby: there are fewer connections.
const FIRST_CLIENT: u32 = 1 << 16;
/// How long nobody is accepted where that was impossible.
const ACCEPT_AGAIN: Duration = Duration::from_millis(250);

/// Deliveries taken before others have their turn.
const DELIVERIES_MOST: usize = 256;

/// The card with the queues.
#[derive(Debug)]
pub(super) struct Streams {
    pub cid: u64,
    pub table: Table,
    /// Resets of what is in no table (any more).
    pub resets: VecDeque<Header>,
    /// The guest's packets are left where they are, until there is room for the resets they may lead to.
    pub tx_held: bool,
    pub rx: Option<Queue>,
    pub tx: Option<Queue>,
    event: Option<Queue>,
    orders: Arc<Mailbox<Order>>,
    deliveries: Arc<Mailbox<Delivery>>,
    lobby: Lobby,
    calls: Calls,
    /// When to have the broker accept again, where it does not.
    accepts_at: Option<Instant>,
    /// Connections of smaller serial numbers were there before the last reset.
    first_serial: u64,
    connections: usize,
    /// Written to be called again, after others have had their turn.
    again: EventFd,
    /// When to look whether what is closing has closed.
    looks_at: Option<Instant>,
    timeouts: Timeouts,
    clock: Clock,
    /// Connections refused and broken off, and packets dropped, that have not been counted yet.
    pub failures: u64,
    blamed: bool,
    // Memory that is used again and again.
    pub chains: Vec<Chain>,
    pub pieces: Vec<Buffer>,
    pub iovecs: IoVecs,
}

impl Streams {
    pub fn new(
        cid: u64,
        connections: u16,
        timeouts: Timeouts,
        orders: Arc<Mailbox<Order>>,
        deliveries: Arc<Mailbox<Delivery>>,
    ) -> io::Result<Self> {
        let connections = usize::from(connections);
        Ok(Self {
            cid,
            table: Table::new(connections),
            resets: VecDeque::new(),
            tx_held: false,
            rx: None,
            tx: None,
            event: None,
            orders,
            deliveries,
            lobby: Lobby::new(FIRST_CLIENT, timeouts.line),
            calls: Calls::new(timeouts.dial),
            accepts_at: None,
            first_serial: 0,
            connections,
            again: eventfd()?,
            looks_at: None,
            timeouts,
            clock: Clock::new()?,
            failures: 0,
            blamed: false,
            chains: vec![Chain::new(); BURST],
            pieces: Vec::new(),
            iovecs: IoVecs::new(),
        })
    }

    /// Has this card called again, after others have had their turn.
    pub fn call_again(&self) {
        // It fails only where the counter is at its maximum, and then there is an edge still to be seen.
        let _: io::Result<()> = self.again.write(1);
    }

    /// Counts something that went wrong.
    pub fn note(&mut self, what: impl Display) {
        self.failures = self.failures.saturating_add(1);
        log::debug!("vsock, guest {}: {what}", self.cid);
    }

    /// Counts something that no driver does that keeps the rules. It is told loudly once: a guest does not fill
    /// the log.
    pub fn blame(&mut self, what: impl Display) {
        self.failures = self.failures.saturating_add(1);
        let again = std::mem::replace(&mut self.blamed, true);
        log::log!(if again { Level::Debug } else { Level::Warn }, "vsock, guest {}: {what}", self.cid);
    }

    /// The guest asks for a connection that there is not.
    pub fn ask_for(&mut self, request: &Header) -> bool {
        if self.calls.len() >= self.connections {
            return false;
        }
        let slot = self.table.add(|serial, window| Connection::dialing(request, serial, window));
        let Some(link) = slot.and_then(|slot| self.table.get(slot)) else { return false };
        let Connection { key, serial, .. } = link.connection;
        let call = Call { key, serial };
        if self.calls.add(call) {
            self.orders.put(Order::Dial(call));
        }
        true
    }

    fn take_deliveries(&mut self, events: &mut Events<'_, '_>) {
        for _ in 0..DELIVERIES_MOST {
            match self.deliveries.take() {
                None => return,
                Some(Delivery::Client { stream, seat }) => {
                    let socket = Socket::new(stream, &self.orders);
                    let guided = self.lobby.enter(socket, seat, self.clock.now(), events);
                    self.client(guided, events);
                }
                Some(Delivery::Held) => {
                    self.accepts_at = self.accepts_at.or_else(|| self.clock.now().checked_add(ACCEPT_AGAIN));
                }
                Some(Delivery::Dialed { call, stream }) => {
                    let stream = stream.map(|stream| Socket::new(stream, &self.orders));
                    // Otherwise asked for by a guest that has reset the device since.
                    if call.serial >= self.first_serial {
                        self.dialed(call, stream, events);
                    }
                }
            }
        }
        self.call_again();
    }

    /// A program on the host connects to the guest, once the lobby knows where to. Where there is no place, it reads
    /// the end of the stream.
    fn client(&mut self, guided: Option<Guided>, events: &mut Events<'_, '_>) {
        let Some((guest_port, socket)) = guided else { return };
        if self.table.is_full() {
            self.note("a client on the host is refused, there are too many connections");
            return;
        }
        let (cid, key) = (self.cid, self.table.allocate(guest_port));
        let slot = self.table.add(|serial, window| Connection::asking(cid, key, serial, window));
        if let Some(slot) = slot {
            self.attach(slot, socket, events);
            self.settle(slot, events);
        }
    }

    /// The broker has made a call.
    fn dialed(&mut self, call: Call, socket: io::Result<Socket>, events: &mut Events<'_, '_>) {
        if matches!(&socket, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            if !self.calls.failed(&call, self.clock.now()) {
                return;
            }
        } else if let Some(next) = self.calls.done(&call) {
            self.orders.put(Order::Dial(next));
        }
        self.called(call, socket, events);
    }

    /// A call has had its result.
    fn called(&mut self, call: Call, socket: io::Result<Socket>, events: &mut Events<'_, '_>) {
        let Call { key, serial } = call;
        let Some(slot) = self.table.find(key) else { return };
        let Some(link) = self.table.get(slot) else { return };
        // The guest may have given up meanwhile, and have begun anew.
        if link.connection.serial != serial || !link.connection.is_dialing() {
            return;
        }
        match socket {
            Ok(socket) => {
                link.connection.dialed();
                self.attach(slot, socket, events);
                self.settle(slot, events);
            }
            Err(error) => {
                self.note(format_args!("nobody is reached at port {}: {error}", key.host_port));
                self.reset(slot, events);
            }
        }
    }

    /// Tries again whoever had no room.
    fn dial_again(&mut self, now: Instant, events: &mut Events<'_, '_>) {
        let (again, over) = self.calls.round(now);
        for call in again {
            self.orders.put(Order::Dial(call));
        }
        for call in over {
            self.called(call, Err(io::ErrorKind::TimedOut.into()), events);
        }
    }

    /// Gives a connection its socket.
    fn attach(&mut self, slot: u32, socket: Socket, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        match events.add(&socket, slot.saturating_add(FIRST_LINK), interest(false)) {
            Ok(()) => link.stream = Some(socket),
            Err(error) => {
                self.note(format_args!("a socket cannot be waited for: {error}"));
                self.reset(slot, events);
            }
        }
    }

    /// Waits for the socket to take more, where something waits for that, and only there.
    pub fn update_interest(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        let wants = !link.backlog.is_empty();
        let Some(stream) = link.stream.as_ref().filter(|_| wants != link.waits_to_write) else { return };
        if events.modify(stream, slot.saturating_add(FIRST_LINK), interest(wants)).is_ok() {
            link.waits_to_write = wants;
        } else {
            self.note("a socket cannot be waited for");
            self.reset(slot, events);
        }
    }

    /// To be called whenever something of a connection has changed: ends what is over, and gives it its turn
    /// where it has something to send.
    pub fn settle(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        let close_timeout = self.timeouts.close;
        let Some(link) = self.table.get(slot) else { return };
        match link.connection.end(link.backlog.len()) {
            End::Open => link.deadline = None,
            End::Closing => {
                if link.deadline.is_none() {
                    link.deadline = self.clock.now().checked_add(close_timeout);
                }
                if !link.connection.host_receives() && !link.connection.wants_data() {
                    self.hang_up(slot, events);
                }
                self.set_timer();
            }
            End::Reset => return self.reset(slot, events),
            End::Over => return drop(self.drop_link(slot, events)),
        }
        self.table.schedule(slot);
    }

    /// Gives up the socket of a connection that has no use for it any more.
    fn hang_up(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        link.backlog.clear();
        if let Some(stream) = link.stream.take() {
            events.remove(&stream);
        }
    }

    /// Ends a connection, and tells the guest.
    pub fn reset(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        if let Some(mut link) = self.drop_link(slot, events) {
            self.resets.push_back(link.connection.reset());
        }
    }

    /// Ends a connection.
    pub fn drop_link(&mut self, slot: u32, events: &mut Events<'_, '_>) -> Option<Box<Link>> {
        self.hang_up(slot, events);
        self.table.remove(slot)
    }

    /// Looks again in a while whether what is closing has closed.
    fn set_timer(&mut self) {
        if self.looks_at.is_none() {
            // Coarse: what is measured is patience.
            let delay = self.timeouts.close.checked_div(8).unwrap_or(self.timeouts.close);
            self.looks_at = self.clock.now().checked_add(delay);
        }
    }

    fn drop_late(&mut self, now: Instant, events: &mut Events<'_, '_>) {
        self.looks_at = None;
        for slot in self.table.slots() {
            if self.table.get(slot).is_none_or(|link| link.deadline.is_none()) {
                continue;
            }
            // A socket tells that it takes more only once most of it is empty: a peer that reads slowly would
            // look like one that does not read.
            self.flush(slot, events);
            let deadline = self.table.get(slot).and_then(|link| link.deadline);
            if deadline.is_some_and(|deadline| deadline <= now) {
                self.note("a connection is given up that did not close in time");
                self.reset(slot, events);
            } else {
                self.settle(slot, events);
            }
        }
    }

    /// How long a connection that is closing may take from now on.
    pub fn prolong(&mut self, slot: u32) {
        if let Some(link) = self.table.get(slot).filter(|link| link.deadline.is_some()) {
            link.deadline = self.clock.now().checked_add(self.timeouts.close);
        }
    }

    fn work(&mut self, transmit: bool, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        if transmit {
            self.transmit(events)?;
        }
        self.receive(events)
    }
}

/// What is waited for of a socket.
fn interest(write: bool) -> EventSet {
    let read = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    if write { read | EventSet::OUT } else { read }
}

impl Card for Streams {
    fn job(&self) -> Job {
        Job::Streams
    }

    /// Connections and clients in the lobby; what waits for slow peers is in pieces that are mapped one by one.
    fn heap(&self) -> usize {
        const BYTES_EACH: usize = 1 << 10;
        self.connections.saturating_add(SEATS).saturating_mul(BYTES_EACH)
    }

    fn activate(&mut self, _: u64, _: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()> {
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        events.add(&self.deliveries.wake, DELIVERIES, edges)?;
        events.add(&self.again, AGAIN, edges)
    }

    fn start_queue(&mut self, queue: Queue, _: &mut Events<'_, '_>) {
        match queue.index() {
            RX => self.rx = Some(queue),
            TX => self.tx = Some(queue),
            _ => self.event = Some(queue),
        }
    }

    fn stop_queue(&mut self, index: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        match index {
            RX => self.rx.take(),
            TX => self.tx.take(),
            _ => self.event.take(),
        }
    }

    fn deactivate(&mut self, events: &mut Events<'_, '_>) {
        events.remove(&self.deliveries.wake);
        events.remove(&self.again);
        (self.looks_at, self.accepts_at) = (None, None);
        for slot in self.table.slots() {
            self.drop_link(slot, events);
        }
        self.resets.clear();
        self.tx_held = false;
        self.lobby.clear(events);
        self.calls.clear();
        self.first_serial = self.table.next_serial();
    }

    fn kicked(&mut self, index: u16, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.work(index == TX, events)
    }

    fn ready(&mut self, token: u32, ready: EventSet, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        match token {
            // After too many of them we are called again.
            DELIVERIES | AGAIN => self.take_deliveries(events),
            FIRST_CLIENT.. => {
                let guided = self.lobby.ready(token, events);
                self.client(guided, events);
            }
            _ => self.socket_ready(token.saturating_sub(FIRST_LINK), ready, events),
        }
        self.work(token == AGAIN, events)
    }

    fn patience(&self) -> Option<Duration> {
        let times = [self.looks_at, self.lobby.looks_at(), self.calls.at(), self.accepts_at];
        let next = times.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(self.clock.now()))
    }

    fn due(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        let now = self.clock.now();
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_over(self.looks_at) {
            self.drop_late(now, events);
        }
        if is_over(self.lobby.looks_at()) {
            self.lobby.look(now, events);
        }
        if is_over(self.calls.at()) {
            self.dial_again(now, events);
        }
        if is_over(self.accepts_at) {
            self.accepts_at = None;
            self.orders.put(Order::Accept);
        }
        self.work(false, events)
    }
}
