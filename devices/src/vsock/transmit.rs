//! From the guest to the host: packets of the transmit queue, and what they do to connections.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;

use event_manager::EventSet;

use super::connection::Verdict;
use super::packet::{HEADER_LEN, HOST_CID, Header, STREAM, op, shut};
use super::worker::Streams;
use crate::host_io::{Here, Span};
use crate::virtio::{Broken, Chain, Events, Memory, Queue};

/// How many resets may wait for the guest to make room, before what it sends is left where it is.
const RESETS_MOST: usize = 256;

impl Streams {
    /// Works through what the guest has sent: all of it, or a queue's worth.
    pub(super) fn transmit(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        let Some(mut queue) = self.tx.take() else { return Ok(()) };
        let mut chain = self.chains.pop().unwrap_or_default();
        let result = self.take_packets(&mut queue, &mut chain, events);
        self.chains.push(chain);
        self.tx = Some(queue);
        result
    }

    fn take_packets(
        &mut self,
        queue: &mut Queue,
        chain: &mut Chain,
        events: &mut Events<'_, '_>,
    ) -> Result<(), Broken> {
        queue.disable_kicks()?;
        let mut budget = queue.size();
        loop {
            self.tx_held = self.resets_are_full();
            if self.tx_held {
                break;
            }
            if budget == 0 {
                self.call_again();
                break;
            }
            budget = budget.saturating_sub(1);
            if queue.pop(chain)? {
                self.packet(queue, chain, events);
                queue.complete(chain.head(), 0)?;
            } else if !queue.enable_kicks()? {
                break;
            }
        }
        queue.publish()
    }

    /// Whether more packets might lead to more resets than may wait.
    pub(super) fn resets_are_full(&self) -> bool {
        self.resets.len() >= RESETS_MOST
    }

    fn packet(&mut self, queue: &Queue, chain: &Chain, events: &mut Events<'_, '_>) {
        let memory = queue.memory();
        let Ok(header) = Header::read(memory, chain) else {
            return self.blame("a packet without a header is dropped");
        };
        if header.src_cid != self.cid || header.dst_cid != HOST_CID {
            return self.blame("a packet with an address of somebody else is dropped");
        }
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        let whole = len <= chain.readable_len().saturating_sub(HEADER_LEN);
        if header.kind != STREAM {
            return self.refuse(&header);
        }
        let slot = self.table.find(header.key());
        let Some((slot, link)) = slot.and_then(|slot| Some((slot, self.table.get(slot)?))) else {
            if header.op != op::REQUEST || !self.ask_for(&header) {
                self.refuse(&header);
            }
            return;
        };
        let queued = link.backlog.len();
        let verdict = if whole { link.connection.packet(&header, queued) } else { Verdict::Violation };
        match verdict {
            Verdict::Noted => {}
            Verdict::Accepted => self.accepted(slot, events),
            Verdict::Data => {
                queue.stats().bytes.add(header.len.into());
                self.data(slot, memory, chain, len, events);
            }
            Verdict::Shut => self.shut(slot),
            Verdict::Gone => return drop(self.drop_link(slot, events)),
            Verdict::Stray => self.refuse(&header),
            Verdict::Violation => {
                self.blame("a connection is reset, the guest broke its rules");
                return self.reset(slot, events);
            }
        }
        self.settle(slot, events);
    }

    /// Answers a packet that belongs to nothing.
    fn refuse(&mut self, header: &Header) {
        // Never a reset in answer to a reset.
        if header.op == op::RST {
            return;
        }
        // What was on its way when the connection ended is nobody's mistake.
        if header.op == op::REQUEST || header.kind != STREAM {
            self.note("a connection is refused");
        }
        self.resets.push_back(header.reset());
    }

    /// The guest accepts a program of the host's, which is told so.
    fn accepted(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        let line = format!("OK {}\n", link.connection.key.host_port);
        // Nothing was written before, so that there is room for all of it, or nobody who would read it.
        let line_len = line.len();
        let told = link.stream.as_ref().and_then(|stream| Here(stream).write(line.as_bytes()).ok());
        if told != Some(line_len) {
            self.reset(slot, events);
        }
    }

    /// Passes `len` bytes of payload on: to the socket as far as it takes them, and the rest is kept.
    fn data(&mut self, slot: u32, memory: &Memory, chain: &Chain, len: usize, events: &mut Events<'_, '_>) {
        let Self { table, iovecs, .. } = self;
        let Some(link) = table.get(slot) else { return };
        let Some(stream) = link.stream.as_ref().filter(|_| link.connection.host_receives()) else {
            // Nobody is there any more, which the guest will hear, or has heard.
            return link.connection.passed_on(len);
        };
        let span = Span { skip: HEADER_LEN, len };
        let taken = if link.backlog.is_empty() && len > 0 {
            iovecs.writev(stream, memory, chain.readable(), span)
        } else {
            Ok(0)
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(_) => {
                link.connection.host_shuts(shut::RECEIVE);
                return link.connection.passed_on(len);
            }
        };
        link.connection.passed_on(taken);
        let rest = len.saturating_sub(taken);
        if rest > 0 {
            // The header's length was compared with the chain's: it is all there.
            let kept = link.backlog.add(memory, chain, HEADER_LEN.saturating_add(taken), rest);
            if kept.is_err() {
                return self.reset(slot, events);
            }
            self.update_interest(slot, events);
        }
    }

    /// The guest has closed a direction.
    fn shut(&mut self, slot: u32) {
        let Some(link) = self.table.get(slot) else { return };
        let Some(stream) = &link.stream else { return };
        // A socket whose peer has gone cannot be shut down, and need not be.
        if !link.connection.guest_receives() {
            let _: std::io::Result<()> = stream.shutdown(Shutdown::Read);
        }
        if !link.connection.guest_sends() && link.backlog.is_empty() {
            let _: std::io::Result<()> = stream.shutdown(Shutdown::Write);
        }
    }

    /// Something has happened to a socket.
    pub(super) fn socket_ready(&mut self, slot: u32, ready: EventSet, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        link.hung_up |= ready.intersects(EventSet::HANG_UP | EventSet::ERROR);
        link.ending |= link.hung_up || ready.contains(EventSet::READ_HANG_UP);
        link.readable |= link.ending || ready.contains(EventSet::IN);
        if link.hung_up && link.connection.is_asking() {
            // The program did not wait for the guest's answer.
            return self.reset(slot, events);
        }
        if link.hung_up && !link.connection.wants_data() {
            link.connection.host_shuts(shut::BOTH);
        }
        if link.hung_up || ready.contains(EventSet::OUT) {
            self.flush(slot, events);
        }
        self.settle(slot, events);
    }

    /// Passes on what was kept for a socket that took nothing.
    pub(super) fn flush(&mut self, slot: u32, events: &mut Events<'_, '_>) {
        let Some(link) = self.table.get(slot) else { return };
        let Some(stream) = link.stream.as_ref().filter(|_| !link.backlog.is_empty()) else { return };
        match link.backlog.flush(Here(stream)) {
            Ok(count) => {
                link.connection.passed_on(count);
                if link.backlog.is_empty() && !link.connection.guest_sends() {
                    let _: std::io::Result<()> = stream.shutdown(Shutdown::Write);
                }
                if count > 0 {
                    self.prolong(slot);
                }
            }
            Err(_) => {
                let count = link.backlog.len();
                link.backlog.clear();
                link.connection.passed_on(count);
                link.connection.host_shuts(shut::RECEIVE);
            }
        }
        self.update_interest(slot, events);
    }
}
