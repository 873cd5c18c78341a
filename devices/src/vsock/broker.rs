//! The broker: the thread of the device that opens sockets, and never sees the guest's memory.
//!
//! It listens for programs on the host, learns from each which port of the guest's it wants, and hands the
//! socket to the worker; and it dials the program that the guest wants. What a guest can bring it to is to
//! dial sockets of the device's own path: a port number is all it gets from there.
//!
//! | threat | answer |
//! |---|---|
//! | a client that sends its line slowly, or never | all are waited for at once, each for a while |
//! | many such clients | from [`CLIENTS`] on the next ones wait in the socket's queue |
//! | a line that is too long, or no line | the client is dropped |
//! | a program that listens and does not accept | dialled again for a while, while others are served |
//! | a guest that connects without end | the worker has a limit on what is ordered at once |
//! | no descriptors left | nothing is accepted for a while |

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::EventSet;

use super::dial::dial;
use super::line::{ConnectLine, LineState};
use super::listener::Listener;
use super::mailbox::{Delivery, Inbox, Order, Outbox};
use super::packet::Key;
use super::spec::Timeouts;
use crate::host_io::Here;
use crate::virtio::{Broken, Card, Events, Job, Line, Queue};

/// Clients whose lines are waited for at once.
const CLIENTS: usize = 1024;
/// What the worker may leave waiting: one that has stopped until its device is reset takes nothing.
const HANDED_MOST: usize = 4096;

/// How often what cannot be waited for is looked at: a program's queue that was full.
const DIAL_AGAIN: Duration = Duration::from_millis(5);
/// The same for clients' time-outs, and for descriptors where there were none.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

const ORDERS: u32 = 0;
const LISTENER: u32 = 1;
const FIRST_CLIENT: u32 = 16;

/// A program that has connected and not said yet where to.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    line: ConnectLine,
    until: Instant,
}

/// A program that the guest wants to reach.
#[derive(Debug)]
struct Dial {
    key: Key,
    serial: u64,
    until: Instant,
}

/// The card without queues.
#[derive(Debug)]
pub(super) struct Broker {
    listener: Listener,
    path: PathBuf,
    timeouts: Timeouts,
    orders: Inbox<Order>,
    deliveries: Outbox<Delivery>,
    clients: Vec<Option<Client>>,
    dials: Vec<Dial>,
    /// When the timer goes off, if it does.
    timer_at: Option<Instant>,
    /// There may be clients in the socket's queue that were left there.
    accepts_again: bool,
}

impl Broker {
    pub fn new(
        listener: Listener,
        path: PathBuf,
        timeouts: Timeouts,
        orders: Inbox<Order>,
        deliveries: Outbox<Delivery>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener,
            path,
            timeouts,
            orders,
            deliveries,
            timer_at: None,
            clients: Vec::new(),
            dials: Vec::new(),
            accepts_again: false,
        })
    }

    fn take_orders(&mut self) {
        let until = Instant::now().checked_add(self.timeouts.dial);
        while let Some(order) = self.orders.take() {
            match (order, until) {
                (Order::Dial { key, serial }, Some(until)) => self.dials.push(Dial { key, serial, until }),
                (Order::Dial { .. }, None) => {}
                (Order::Forget, _) => self.dials.clear(),
            }
        }
    }

    /// Tries all that are to be dialled.
    fn dial(&mut self) {
        let now = Instant::now();
        // Ports whose program had no room a moment ago.
        let mut full = BTreeSet::new();
        let Self { dials, path, deliveries, .. } = self;
        dials.retain(|Dial { key, serial, until }| {
            let port = key.host_port;
            let stream = if full.contains(&port) {
                Err(ErrorKind::WouldBlock.into())
            } else {
                let mut name = path.clone().into_os_string();
                name.push(format!("_{port}"));
                dial(name.as_ref())
            };
            let waits = matches!(&stream, Err(error) if error.kind() == ErrorKind::WouldBlock);
            if waits && *until > now {
                full.insert(port);
                return true;
            }
            deliveries.put(Delivery::Dialed { key: *key, serial: *serial, stream });
            false
        });
    }

    /// Takes clients out of the socket's queue, as many as there is room for.
    fn accept(&mut self, events: &mut Events<'_, '_>) {
        self.accepts_again = false;
        let Some(until) = Instant::now().checked_add(self.timeouts.line) else { return };
        loop {
            let free = self.clients.iter().position(Option::is_none);
            if free.is_none() && self.clients.len() >= CLIENTS {
                self.accepts_again = true;
                return;
            }
            let stream = match self.listener.accept() {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A client that has gone again.
                Err(error)
                    if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => {
                    log::debug!("no client is accepted for a while: {error}");
                    self.accepts_again = true;
                    return;
                }
            };
            let slot = free.unwrap_or(self.clients.len());
            let Ok(token) = u32::try_from(slot) else { return };
            let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
            if let Err(error) = events.add(&stream, token.saturating_add(FIRST_CLIENT), edges) {
                log::debug!("a client cannot be waited for: {error}");
                continue;
            }
            let client = Some(Client { stream, line: ConnectLine::default(), until });
            match self.clients.get_mut(slot) {
                Some(place) => *place = client,
                None => self.clients.push(client),
            }
            self.listen_to(slot, events);
        }
    }

    /// Reads what a client has sent of its line.
    fn listen_to(&mut self, slot: usize, events: &mut Events<'_, '_>) {
        let Some(place) = self.clients.get_mut(slot) else { return };
        let Some(client) = place else { return };
        let state = client.line.read_from(Here(&client.stream));
        if state == LineState::Unfinished {
            return;
        }
        events.remove(&client.stream);
        let Some(Client { stream, .. }) = place.take() else { return };
        match state {
            LineState::Connect(guest_port) if self.deliveries.waiting() < HANDED_MOST => {
                self.deliveries.put(Delivery::Client { guest_port, stream });
            }
            // The client reads the end of the stream.
            _ => log::debug!("a client of {} is refused: {state:?}", self.path.display()),
        }
    }

    fn drop_late_clients(&mut self, events: &mut Events<'_, '_>) {
        let now = Instant::now();
        for place in &mut self.clients {
            if let Some(client) = place.take_if(|client| client.until <= now) {
                events.remove(&client.stream);
            }
        }
        // Slots at the end that nobody uses any more.
        let used = self.clients.iter().rposition(Option::is_some).map_or(0, |last| last.saturating_add(1));
        self.clients.truncate(used);
    }

    /// Sees to it that the timer goes off when there is something to look at, and never else.
    fn set_timer(&mut self) {
        let delay = if !self.dials.is_empty() {
            DIAL_AGAIN
        } else if self.accepts_again || self.clients.iter().any(Option::is_some) {
            LOOK_AGAIN
        } else {
            return;
        };
        let at = Instant::now().checked_add(delay);
        if self.timer_at.is_some_and(|set| at.is_none_or(|at| set <= at)) {
            return;
        }
        self.timer_at = at;
    }
}

impl Card for Broker {
    fn job(&self) -> Job {
        Job::Broker
    }

    fn activate(&mut self, _: u64, _: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()> {
        let edges = EventSet::IN | EventSet::EDGE_TRIGGERED;
        events.add(&*self.orders.wake, ORDERS, edges)?;
        events.add(&self.listener, LISTENER, edges)
    }

    fn start_queue(&mut self, _: Queue, _: &mut Events<'_, '_>) {}

    fn stop_queue(&mut self, _: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        None
    }

    fn deactivate(&mut self, events: &mut Events<'_, '_>) {
        events.remove(&*self.orders.wake);
        events.remove(&self.listener);
        for client in self.clients.drain(..).flatten() {
            events.remove(&client.stream);
        }
        self.dials.clear();
        self.timer_at = None;
    }

    fn kicked(&mut self, _: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        Ok(())
    }

    fn ready(&mut self, token: u32, _: EventSet, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        match token {
            ORDERS => {
                self.take_orders();
                self.dial();
            }
            LISTENER => self.accept(events),
            _ => {
                let slot = usize::try_from(token.saturating_sub(FIRST_CLIENT)).unwrap_or(usize::MAX);
                self.listen_to(slot, events);
            }
        }
        if self.accepts_again && token != LISTENER {
            self.accept(events);
        }
        self.set_timer();
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.timer_at
    }

    fn due(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.timer_at = None;
        self.dial();
        self.drop_late_clients(events);
        if self.accepts_again {
            self.accept(events);
        }
        self.set_timer();
        Ok(())
    }
}
