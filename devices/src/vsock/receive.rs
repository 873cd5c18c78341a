//! From the host to the guest: resets first, then each connection that has something to send in its turn.
//!
//! A turn is one packet of control, or [`TURN_BYTES`] of payload: all have the same share, however many buffers
//! the guest happened to offer when it was their turn. One read of the socket fills as many buffers as earlier
//! ones of this connection filled, up to [`BURST`]: they are small (Linux: 4 KiB), and a system call for each
//! would be dear.

use std::io::ErrorKind;

use vm_memory::GuestAddress;

use super::packet::{HEADER_LEN, Header, shut};
use super::table::Link;
use super::worker::Streams;
use crate::host_io::Span;
use crate::virtio::{Broken, Buffer, Chain, Events, MAX_BUFFERS, Queue};

/// The most packets of one read.
pub(super) const BURST: usize = 16;
/// The most bytes of one turn.
const TURN_BYTES: usize = 64 << 10;

impl Streams {
    /// Sends the guest what there is for it, as far as it has room, or a queue's worth.
    pub(super) fn receive(&mut self, events: &mut Events<'_, '_>) -> Result<(), Broken> {
        let Some(mut queue) = self.rx.take() else { return Ok(()) };
        queue.stats().errors.add(std::mem::take(&mut self.failures));
        let mut chains = std::mem::take(&mut self.chains);
        let result = self.send_all(&mut queue, &mut chains, events);
        self.chains = chains;
        self.rx = Some(queue);
        result
    }

    fn has_something(&self) -> bool {
        !self.resets.is_empty() || self.table.has_turn()
    }

    fn send_all(
        &mut self,
        queue: &mut Queue,
        chains: &mut [Chain],
        events: &mut Events<'_, '_>,
    ) -> Result<(), Broken> {
        // The driver need not say that there are new buffers, unless we wait for them.
        queue.disable_kicks()?;
        let mut budget = usize::from(queue.size());
        while self.has_something() {
            if budget == 0 {
                self.call_again();
                break;
            }
            let Some(first) = chains.first_mut() else { break };
            let used = if queue.pop(first)? {
                self.send(queue, chains, events)?
            } else if queue.enable_kicks()? {
                1
            } else {
                break;
            };
            budget = budget.saturating_sub(used.max(1));
        }
        queue.publish()?;
        if self.tx_held && !self.resets_are_full() {
            self.call_again();
        }
        Ok(())
    }

    /// Sends what is next, with the first chain taken already. Returns how many were used.
    fn send(
        &mut self,
        queue: &mut Queue,
        chains: &mut [Chain],
        events: &mut Events<'_, '_>,
    ) -> Result<usize, Broken> {
        let Some(first) = chains.first() else { return Ok(0) };
        // Payload is to fit too, or else a guest could make us go round without sending anything.
        if first.writable_len() <= HEADER_LEN {
            queue.complete(first.head(), 0)?;
            self.blame("a buffer that holds no packet is given back");
            return Ok(1);
        }
        if let Some(reset) = self.resets.pop_front() {
            put(queue, first, &reset)?;
            return Ok(1);
        }
        let turn = self.table.next_turn();
        let Some((slot, link)) = turn.and_then(|slot| Some((slot, self.table.get(slot)?))) else {
            queue.rewind(1);
            return Ok(0);
        };
        let used = if let Some(header) = link.connection.take_control() {
            put(queue, first, &header)?;
            1
        } else {
            self.send_data(slot, queue, chains)?
        };
        self.settle(slot, events);
        Ok(used)
    }

    /// Reads from the connection's socket into the guest's buffers.
    fn send_data(&mut self, slot: u32, queue: &mut Queue, chains: &mut [Chain]) -> Result<usize, Broken> {
        let Self { table, pieces, iovecs, .. } = self;
        let Some(link) = table.get(slot).filter(|link| link.may_read()) else {
            queue.rewind(1);
            return Ok(0);
        };
        let left = TURN_BYTES.saturating_sub(link.turn);
        let room = usize::try_from(link.connection.room()).unwrap_or(usize::MAX).min(left);
        let (taken, total) = gather(queue, chains, pieces, link.burst, room)?;
        let want = total.min(room);
        let result = match &link.stream {
            Some(stream) => iovecs.readv(stream, queue.memory(), pieces, Span { skip: 0, len: want }),
            None => Err(ErrorKind::WouldBlock.into()),
        };
        let count = match result {
            Ok(0) => {
                link.readable = false;
                link.connection.host_shuts(if link.hung_up { shut::BOTH } else { shut::SEND });
                0
            }
            Ok(count) => count.min(want),
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => {
                link.readable = false;
                if error.kind() != ErrorKind::WouldBlock {
                    link.connection.host_shuts(shut::BOTH);
                }
                0
            }
        };
        if count < want {
            // The socket is empty, and the next byte is another edge; but an end has had its edge already. (A
            // peer that passes descriptors along cuts reads short, too: it holds up its own connection.)
            link.readable &= link.ending;
            link.burst = (link.burst / 2).max(1);
        } else if taken == link.burst {
            link.burst = link.burst.saturating_mul(2).min(BURST);
        }
        link.turn = link.turn.saturating_add(count);
        let goes_on = link.turn < TURN_BYTES && link.may_read();
        if !goes_on {
            link.turn = 0;
        }
        let used = deliver(link, queue, chains.get(..taken).unwrap_or_default(), count)?;
        if goes_on {
            table.keep_turn(slot);
        }
        queue.rewind(u16::try_from(taken.saturating_sub(used)).unwrap_or(0));
        Ok(used)
    }
}

/// Takes more chains, until there are `burst` or room for `room` bytes of payload. Returns how many there are,
/// and for how many bytes; where these go is in `pieces`.
fn gather(
    queue: &mut Queue,
    chains: &mut [Chain],
    pieces: &mut Vec<Buffer>,
    burst: usize,
    room: usize,
) -> Result<(usize, usize), Broken> {
    pieces.clear();
    let (mut taken, mut total) = (0_usize, 0_usize);
    for chain in chains.iter_mut().take(burst) {
        // The first one was taken by the caller.
        if taken > 0 && (total >= room || !queue.pop(chain)?) {
            break;
        }
        let payload = payload_len(chain);
        // All of it has to fit one system call: a read that is cut short means an empty socket.
        let fits = pieces.len().saturating_add(chain.writable().len()) <= MAX_BUFFERS;
        if payload == 0 || !fits {
            queue.rewind(1);
            break;
        }
        add_payload(chain, pieces);
        taken = taken.saturating_add(1);
        total = total.saturating_add(payload);
    }
    Ok((taken, total))
}

fn payload_len(chain: &Chain) -> usize {
    chain.writable_len().saturating_sub(HEADER_LEN)
}

/// Adds to `pieces` where the payload of a packet in `chain` goes.
fn add_payload(chain: &Chain, pieces: &mut Vec<Buffer>) {
    let mut header = u32::try_from(HEADER_LEN).unwrap_or(0);
    for Buffer { addr, len } in chain.writable() {
        let skip = header.min(*len);
        header = header.saturating_sub(skip);
        // Within the buffer, so that nothing overflows.
        let addr = GuestAddress(addr.0.saturating_add(skip.into()));
        pieces.push(Buffer { addr, len: len.saturating_sub(skip) });
    }
}

/// Puts headers before `count` bytes that are in place already. Returns how many packets they are.
fn deliver(link: &mut Link, queue: &mut Queue, chains: &[Chain], count: usize) -> Result<usize, Broken> {
    let (mut left, mut used) = (count, 0_usize);
    for chain in chains {
        let len = left.min(payload_len(chain));
        if len == 0 {
            break;
        }
        let header = link.connection.send(u32::try_from(len).unwrap_or(u32::MAX));
        put(queue, chain, &header)?;
        left = left.saturating_sub(len);
        used = used.saturating_add(1);
    }
    queue.stats().bytes.add(count as u64);
    Ok(used)
}

/// Gives a packet to the guest whose payload is in place.
fn put(queue: &mut Queue, chain: &Chain, header: &Header) -> Result<(), Broken> {
    let len = u32::try_from(HEADER_LEN).unwrap_or(0).saturating_add(header.len);
    // Chains that are too short for a header do not come this far.
    let written = header.write(queue.memory(), chain).map_or(0, |()| len);
    queue.complete(chain.head(), written)
}
