//! One connection: what it may send, what it has to say, and when it is over. It knows no socket and no
//! queue; time is given to it.
//!
//! What must hold:
//! - No more is sent to the guest than it has room for, as it says itself; what it says is only ever
//!   compared, so that no value of it does harm.
//! - The guest may have at most `window` bytes on their way to the host's peer: what it sends beyond that is
//!   a violation, so that the bytes kept for a slow peer are bounded.
//! - What is to be said is a set of bits, however often it became necessary to say it.

use std::num::Wrapping;

use super::packet::{HOST_CID, Header, Key, STREAM, op, shut};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The guest asked for it, and the broker is dialling.
    #[default]
    Dialing,
    /// A program on the host asked for it, and the guest has not answered.
    Asking,
    /// Both ends know of it.
    Open,
    /// The guest does not know of it any more, but the host's peer has not taken all that the guest sent.
    Draining,
}

/// What has to be said to the guest, most urgent first.
const SAYINGS: [(u8, u16); 5] = [
    (REQUEST, op::REQUEST),
    (RESPONSE, op::RESPONSE),
    (CREDIT_UPDATE, op::CREDIT_UPDATE),
    (CREDIT_REQUEST, op::CREDIT_REQUEST),
    (SHUTDOWN, op::SHUTDOWN),
];
const REQUEST: u8 = 1;
const RESPONSE: u8 = 1 << 1;
const CREDIT_UPDATE: u8 = 1 << 2;
const CREDIT_REQUEST: u8 = 1 << 3;
const SHUTDOWN: u8 = 1 << 4;

/// What a packet from the guest means for whoever holds the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing beyond what the connection keeps in mind.
    Noted,
    /// The guest accepts what the host's peer asked for.
    Accepted,
    /// The payload is to be passed on; the credit covers it.
    Data,
    /// The guest closed one direction or both: see [`Connection::guest_sends`], [`Connection::guest_receives`].
    Shut,
    /// The guest has reset the connection: it is over.
    Gone,
    /// The packet cannot be: the connection is over, and the guest is to be told.
    Violation,
    /// The packet is of a connection that is over for the guest: it is to be told, nothing else changes.
    Stray,
}

/// Whether a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is not.
    Open,
    /// One side has closed both directions, and the other has a while to come to its end: the guest to answer,
    /// the host's peer to take what there is for it.
    Closing,
    /// It is over, and the guest is to be told.
    Reset,
    /// It is over, and the guest knows.
    Over,
}

/// A connection's state.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection {
    pub key: Key,
    /// Tells it from every other connection that there was, of the same ports too.
    pub serial: u64,
    cid: u64,
    phase: Phase,
    pending: u8,
    /// How much of what the guest sends may be on its way.
    window: u32,
    /// Bytes passed on to the host's peer, and as far as the guest was told of it.
    passed_on: Wrapping<u32>,
    told: Wrapping<u32>,
    /// What the guest says of its own buffer.
    guest_window: u32,
    guest_passed_on: Wrapping<u32>,
    /// Bytes sent to the guest.
    sent: Wrapping<u32>,
    /// The guest was asked for credit, and has not given any since.
    asked: bool,
    /// What each side said it would not do any more, as the flags of a SHUTDOWN.
    guest_shut: u32,
    host_shut: u32,
}

impl Connection {
    /// One that the guest asks for by `request`.
    pub fn dialing(request: &Header, serial: u64, window: u32) -> Self {
        let mut connection = Self::new(request.src_cid, request.key(), Phase::Dialing, serial, window);
        connection.learn(request);
        connection
    }

    /// One that is asked of the guest with this address.
    pub fn asking(cid: u64, key: Key, serial: u64, window: u32) -> Self {
        let mut connection = Self::new(cid, key, Phase::Asking, serial, window);
        connection.pending = REQUEST;
        connection
    }

    fn new(cid: u64, key: Key, phase: Phase, serial: u64, window: u32) -> Self {
        Self { key, serial, cid, phase, window, ..Self::default() }
    }

    /// A packet of the guest's, while `queued` bytes wait for the host's peer.
    pub fn packet(&mut self, header: &Header, queued: usize) -> Verdict {
        if self.phase == Phase::Draining {
            return if header.op == op::RST { Verdict::Noted } else { Verdict::Stray };
        }
        self.learn(header);
        match (self.phase, header.op) {
            (_, op::RST) if self.guest_shut == shut::BOTH && queued > 0 => {
                // It closed in order, and has waited long enough for our answer: what it sent is still good.
                self.phase = Phase::Draining;
                self.pending = 0;
                Verdict::Noted
            }
            (_, op::RST) => Verdict::Gone,
            (Phase::Asking, op::RESPONSE) => {
                self.phase = Phase::Open;
                Verdict::Accepted
            }
            (Phase::Open, op::RW) => {
                let held = u32::try_from(queued).ok().and_then(|queued| queued.checked_add(header.len));
                let covered = held.is_some_and(|held| held <= self.window);
                if covered && self.guest_sends() { Verdict::Data } else { Verdict::Violation }
            }
            (Phase::Open, op::CREDIT_UPDATE) => Verdict::Noted,
            (Phase::Open, op::CREDIT_REQUEST) => {
                self.pending |= CREDIT_UPDATE;
                Verdict::Noted
            }
            (Phase::Open, op::SHUTDOWN) => {
                self.guest_shut |= header.flags & shut::BOTH;
                Verdict::Shut
            }
            // A guest that gave up connecting sends a SHUTDOWN too; a reset is what it waits for.
            _ => Verdict::Violation,
        }
    }

    fn learn(&mut self, header: &Header) {
        self.guest_window = header.buf_alloc;
        self.guest_passed_on = Wrapping(header.fwd_cnt);
        if self.room() > 0 {
            self.asked = false;
        }
    }

    /// The broker reached a program on the host.
    pub fn dialed(&mut self) {
        self.phase = Phase::Open;
        self.pending |= RESPONSE;
    }

    /// Whether the broker is still dialling.
    pub fn is_dialing(&self) -> bool {
        self.phase == Phase::Dialing
    }

    /// Whether the guest has not answered yet.
    pub fn is_asking(&self) -> bool {
        self.phase == Phase::Asking
    }

    /// How many bytes the guest has room for.
    pub fn room(&self) -> u32 {
        self.guest_window.saturating_sub((self.sent - self.guest_passed_on).0)
    }

    /// Whether what the host's peer sends is to be read and passed to the guest.
    pub fn may_send(&self) -> bool {
        self.wants_data() && self.room() > 0
    }

    /// Whether the guest is to be asked for room before anything can be passed to it.
    pub fn wants_data(&self) -> bool {
        self.phase == Phase::Open && self.guest_receives() && self.host_shut & shut::SEND == 0
    }

    /// There is something for the guest, and it has no room: asks once.
    pub fn ask_for_room(&mut self) {
        if self.room() == 0 && !self.asked {
            self.asked = true;
            self.pending |= CREDIT_REQUEST;
        }
    }

    /// Whether the guest may still send.
    pub fn guest_sends(&self) -> bool {
        self.guest_shut & shut::SEND == 0
    }

    /// Whether the guest still wants to receive.
    pub fn guest_receives(&self) -> bool {
        self.guest_shut & shut::RECEIVE == 0
    }

    /// Whether the host's peer still takes anything.
    pub fn host_receives(&self) -> bool {
        self.host_shut & shut::RECEIVE == 0
    }

    /// The host's peer does this no longer (flags as in [`shut`]).
    pub fn host_shuts(&mut self, flags: u32) {
        if self.host_shut | flags != self.host_shut {
            self.host_shut |= flags;
            if self.phase == Phase::Open {
                self.pending |= SHUTDOWN;
            }
        }
    }

    /// `count` bytes of what the guest sent left our hands.
    pub fn passed_on(&mut self, count: usize) {
        // What waits is bounded by the window, so that nothing is cut off.
        self.passed_on += Wrapping(u32::try_from(count).unwrap_or(u32::MAX));
        if self.phase == Phase::Open && (self.passed_on - self.told).0 >= self.window / 2 {
            self.pending |= CREDIT_UPDATE;
        }
    }

    /// Whether there is something to say.
    pub fn has_control(&self) -> bool {
        self.pending != 0
    }

    /// The most urgent thing to say.
    pub fn take_control(&mut self) -> Option<Header> {
        let (bit, op) = SAYINGS.into_iter().find(|(bit, _)| self.pending & bit != 0)?;
        self.pending &= !bit;
        Some(self.header(op, 0))
    }

    /// The header for `len` bytes of payload, which fit the guest's room.
    pub fn send(&mut self, len: u32) -> Header {
        self.sent += Wrapping(len);
        self.header(op::RW, len)
    }

    /// A header that ends the connection.
    pub fn reset(&mut self) -> Header {
        self.header(op::RST, 0)
    }

    fn header(&mut self, op: u16, len: u32) -> Header {
        // Every packet says how far we are.
        self.told = self.passed_on;
        self.pending &= !CREDIT_UPDATE;
        Header {
            src_cid: HOST_CID,
            dst_cid: self.cid,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len,
            kind: STREAM,
            op,
            flags: if op == op::SHUTDOWN { self.host_shut } else { 0 },
            buf_alloc: self.window,
            fwd_cnt: self.passed_on.0,
        }
    }

    /// Whether it is over, where `queued` bytes wait for the host's peer.
    pub fn end(&self, queued: usize) -> End {
        let drained = queued == 0 || !self.host_receives();
        match self.phase {
            Phase::Dialing | Phase::Asking => return End::Open,
            Phase::Draining => return if drained { End::Over } else { End::Closing },
            Phase::Open => {}
        }
        let to_host = !self.host_receives() || !self.guest_sends() && drained;
        let to_guest = !self.guest_receives() || self.host_shut & shut::SEND != 0;
        if to_host && to_guest {
            // The guest hears what the host has closed before it hears that all is over; and a guest that
            // closed nothing yet answers with the reset itself.
            if self.guest_shut == shut::BOTH || self.guest_shut != 0 && self.pending & SHUTDOWN == 0 {
                return End::Reset;
            }
            return End::Closing;
        }
        if self.guest_shut == shut::BOTH { End::Closing } else { End::Open }
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
