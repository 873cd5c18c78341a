//! Clients of the host that have connected and not said yet to which port of the guest's they want.
//!
//! | threat | answer |
//! |---|---|
//! | a client that sends its line slowly, or never | all are waited for at once, each for a while |
//! | many such clients | each has a seat (`mailbox.rs`), of which there is a number |
//! | a line that is too long, or no line | the client is dropped |

use std::time::{Duration, Instant};

use event_manager::EventSet;

use super::line::{ConnectLine, LineState};
use super::mailbox::Seat;
use super::socket::Socket;
use crate::host_io::Here;
use crate::virtio::Events;

/// How often it is looked whether a client's time is over.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The clients.
#[derive(Debug)]
pub(super) struct Lobby {
    clients: Vec<Option<Client>>,
    /// The token of the first client's socket; the others' follow.
    first_token: u32,
    patience: Duration,
    /// When to look whether somebody's time is over, where there is somebody.
    looks_at: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    socket: Socket,
    _seat: Seat,
    line: ConnectLine,
    until: Option<Instant>,
}

/// A client that has said to which port it wants.
pub(super) type Guided = (u32, Socket);

impl Lobby {
    /// An empty one, in which each client may stay for as long as `patience` says.
    pub fn new(first_token: u32, patience: Duration) -> Self {
        Self { clients: Vec::new(), first_token, patience, looks_at: None }
    }

    /// A client comes in at the time `now`. Many have said already where to.
    pub fn enter(
        &mut self,
        socket: Socket,
        seat: Seat,
        now: Instant,
        events: &mut Events<'_, '_>,
    ) -> Option<Guided> {
        let free = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
        let token = self.first_token.saturating_add(u32::try_from(free).ok()?);
        if let Err(error) = events.add(&socket, token, EventSet::IN | EventSet::EDGE_TRIGGERED) {
            log::debug!("a client cannot be waited for: {error}");
            return None;
        }
        let until = now.checked_add(self.patience);
        let client = Some(Client { socket, _seat: seat, line: ConnectLine::default(), until });
        match self.clients.get_mut(free) {
            Some(place) => *place = client,
            None => self.clients.push(client),
        }
        self.looks_at = self.looks_at.or_else(|| now.checked_add(LOOK_AGAIN));
        self.ready(token, events)
    }

    /// A client's socket is ready: reads what it has sent of its line.
    pub fn ready(&mut self, token: u32, events: &mut Events<'_, '_>) -> Option<Guided> {
        let place = usize::try_from(token.checked_sub(self.first_token)?).ok()?;
        let place = self.clients.get_mut(place)?;
        let client = place.as_mut()?;
        let state = client.line.read_from(Here(&client.socket));
        if state == LineState::Unfinished {
            return None;
        }
        let Client { socket, .. } = place.take()?;
        events.remove(&socket);
        match state {
            LineState::Connect(port) => Some((port, socket)),
            // The client reads the end of the stream.
            _ => {
                log::debug!("a client is refused: {state:?}");
                None
            }
        }
    }

    /// When to be [`look`](Self::look)ed at.
    pub fn looks_at(&self) -> Option<Instant> {
        self.looks_at
    }

    /// Drops those whose time is over.
    pub fn look(&mut self, now: Instant, events: &mut Events<'_, '_>) {
        let late = |client: &mut Client| client.until.is_none_or(|until| until <= now);
        for place in &mut self.clients {
            if let Some(client) = place.take_if(late) {
                events.remove(&client.socket);
            }
        }
        // Places at the end that nobody uses any more.
        let used = self.clients.iter().rposition(Option::is_some).map_or(0, |last| last.saturating_add(1));
        self.clients.truncate(used);
        self.looks_at = if used == 0 { None } else { now.checked_add(LOOK_AGAIN) };
    }

    /// Drops all.
    pub fn clear(&mut self, events: &mut Events<'_, '_>) {
        self.clients.drain(..).flatten().for_each(|client| events.remove(&client.socket));
        self.looks_at = None;
    }
}
