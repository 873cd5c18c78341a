//! From the TAP to the driver.
//!
//! Chains are taken from the queue ahead of the frames, so that each is parsed once, and lent to the kernel
//! as one run of buffers: a frame is read right into them, over as many chains as it needs (with mergeable
//! buffers; into one chain without). What does not go there spills into memory of our own and is copied, when
//! the driver has given more buffers if need be: so no frame is lost because the driver is slow, and none is
//! cut short unnoticed.
//!
//! What must hold: at most as many chains are lent as the queue has entries; all chains of a frame are
//! published together; no frame is read while there is no chain at all.

use std::collections::VecDeque;
use std::io;

use super::tap::Tap;
use super::turn::{Side, starve};
use super::{HEADER_FLAGS, HEADER_LEN, HEADER_NUM_BUFFERS, LINK_HEADER_LEN, MAX_FRAME, Wait, features};
use crate::host_io::{IoVecs, Span};
use crate::throttle::Throttle;
use crate::virtio::{Broken, Buffer, Chain, MAX_BUFFERS, Queue, write};

/// The packets of a link whose MTU nobody has named.
const USUAL_MTU: u16 = 1500;

/// A receive queue that is started.
pub(super) struct Receiver {
    queue: Queue,
    mergeable: bool,
    /// The driver does not know of checksums to be finished.
    plain: bool,
    /// The longest frame that is not made of several packets.
    usual: usize,
    /// The longest frame that is likely to come next. Many buffers make a call slow, and spilling costs a copy:
    /// after a long frame there are many, after another one there are few.
    likely: usize,
    lent: Lent,
    frame: Option<Frame>,
    spill: Vec<u8>,
    vecs: IoVecs,
    chain: Chain,
}

/// The chains that have been taken and not given back, in order, and their buffers as one run.
#[derive(Default)]
struct Lent {
    chains: VecDeque<LentChain>,
    buffers: Vec<Buffer>,
    len: usize,
}

struct LentChain {
    head: u16,
    buffers: usize,
    len: usize,
}

/// A frame that has been read: its beginning lies in the lent buffers, the rest in the spill.
#[derive(Clone, Copy)]
struct Frame {
    placed: usize,
    spilled: usize,
}

impl Frame {
    fn len(self) -> usize {
        self.placed.saturating_add(self.spilled)
    }

    /// Bytes without the header.
    fn payload(self) -> usize {
        self.len().saturating_sub(HEADER_LEN)
    }
}

impl Receiver {
    pub(super) fn new(queue: Queue, accepted: u64, mtu: Option<u16>) -> Self {
        let packet = usize::from(mtu.unwrap_or(USUAL_MTU));
        let usual = packet.saturating_add(HEADER_LEN).saturating_add(LINK_HEADER_LEN);
        Self {
            queue,
            mergeable: accepted & features::MRG_RXBUF != 0,
            plain: accepted & features::GUEST_CSUM == 0,
            usual,
            likely: usual,
            lent: Lent::default(),
            frame: None,
            // One byte more than a frame can have, so that one that has been cut short shows. The pages are
            // the host's until they are written.
            spill: vec![0; MAX_FRAME.saturating_add(1)],
            vecs: IoVecs::new(),
            chain: Chain::new(),
        }
    }

    /// Passes one frame on; or says what it waits for.
    pub(super) fn step(&mut self, tap: &Tap, throttle: &mut Throttle) -> Result<Option<Wait>, Broken> {
        let frame = match self.frame.take() {
            Some(frame) => frame,
            None => {
                self.gather(self.likely)?;
                if self.lent.chains.is_empty() {
                    return starve(&mut self.queue);
                }
                if !throttle.admits() {
                    self.queue.stats().throttled.add(1);
                    return Ok(Some(Wait::Clock));
                }
                match self.read(tap) {
                    Ok(frame) => {
                        throttle.charge(frame.payload() as u64);
                        frame
                    }
                    Err(error) => return Ok(self.refused(&error)),
                }
            }
        };
        self.gather(frame.len())?;
        if frame.len() <= self.room() {
            self.deliver(frame)?;
        } else if self.mergeable && !self.is_full() && frame.len() <= MAX_FRAME {
            self.frame = Some(frame);
            return starve(&mut self.queue);
        } else {
            log::debug!("a received frame of {} bytes does not fit the driver's buffers", frame.len());
            self.queue.stats().errors.add(1);
        }
        Ok(None)
    }

    /// Reads a frame, with its header.
    fn read(&mut self, tap: &Tap) -> io::Result<Frame> {
        let buffers = match self.lent.chains.front() {
            Some(first) if !self.mergeable => self.lent.buffers.get(..first.buffers).unwrap_or_default(),
            _ => &self.lent.buffers,
        };
        let span = Span { skip: 0, len: self.likely };
        let (placed, spilled) =
            self.vecs.readv_spilling(tap, self.queue.memory(), buffers, span, &mut self.spill)?;
        let frame = Frame { placed, spilled };
        self.likely = if frame.len() > self.usual { MAX_FRAME } else { self.usual };
        if frame.len() < HEADER_LEN { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(frame) }
    }

    fn refused(&self, error: &io::Error) -> Option<Wait> {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Some(Wait::Tap),
            // Guest memory that is gone: the frame with it.
            Some(libc::EFAULT) => {
                self.queue.stats().errors.add(1);
                None
            }
            // EBADFD: the interface has been deleted. What else there may be will not mend either.
            _ => Some(Wait::Gone),
        }
    }

    /// Takes chains until they have room for `len` bytes, as far as there are any.
    fn gather(&mut self, len: usize) -> Result<(), Broken> {
        while self.room() < len && !self.is_full() && (self.mergeable || self.lent.chains.is_empty()) {
            if !self.queue.pop(&mut self.chain)? {
                break;
            }
            self.lent.push(&self.chain);
        }
        Ok(())
    }

    /// Whether no more chains will be taken.
    fn is_full(&self) -> bool {
        self.lent.chains.len() >= usize::from(self.queue.size()) || self.lent.buffers.len() >= MAX_BUFFERS
    }

    /// Bytes of one frame that the lent buffers can hold.
    fn room(&self) -> usize {
        if self.mergeable { self.lent.len } else { self.lent.chains.front().map_or(0, |first| first.len) }
    }

    /// Gives the driver a frame that the lent buffers have room for.
    fn deliver(&mut self, frame: Frame) -> Result<(), Broken> {
        let spilled = self.spill.get(..frame.spilled).unwrap_or_default();
        let chains = self.lent.count(frame.len());
        let num_buffers = u16::try_from(chains).unwrap_or(u16::MAX).to_le_bytes();
        let memory = self.queue.memory();
        let mut result = write(memory, &self.lent.buffers, frame.placed, spilled)
            .and_then(|()| write(memory, &self.lent.buffers, HEADER_NUM_BUFFERS, &num_buffers));
        if self.plain {
            // "The device MUST set flags to zero" (section 5.1.6.4.1): the kernel says there where it has
            // checked a checksum.
            result = result.and_then(|()| write(memory, &self.lent.buffers, HEADER_FLAGS, &[0]));
        }
        if result.is_err() {
            // There is room; so this is guest memory that is gone.
            self.queue.stats().errors.add(1);
            return Ok(());
        }
        self.queue.stats().bytes.add(frame.payload() as u64);
        let mut rest = frame.len();
        let mut buffers = 0_usize;
        for chain in self.lent.chains.drain(..chains) {
            let written = rest.min(chain.len);
            rest = rest.saturating_sub(written);
            buffers = buffers.saturating_add(chain.buffers);
            self.lent.len = self.lent.len.saturating_sub(chain.len);
            self.queue.complete(chain.head, u32::try_from(written).unwrap_or(u32::MAX))?;
        }
        self.lent.buffers.drain(..buffers.min(self.lent.buffers.len()));
        Ok(())
    }
}

impl Side for Receiver {
    fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// The chains that hold no frame have not been taken.
    fn stop(mut self) -> Queue {
        if self.frame.is_some() {
            self.queue.stats().errors.add(1);
        }
        self.queue.rewind(u16::try_from(self.lent.chains.len()).unwrap_or(0));
        self.queue
    }
}

impl Lent {
    fn push(&mut self, chain: &Chain) {
        let (buffers, len) = (chain.writable(), chain.writable_len());
        self.chains.push_back(LentChain { head: chain.head(), buffers: buffers.len(), len });
        self.buffers.extend_from_slice(buffers);
        self.len = self.len.saturating_add(len);
    }

    /// How many chains hold a frame of `len` bytes, of which there is at least one.
    fn count(&self, len: usize) -> usize {
        let mut room = 0_usize;
        let short = self.chains.iter().take_while(|chain| {
            room = room.saturating_add(chain.len);
            room < len
        });
        short.count().saturating_add(1).min(self.chains.len())
    }
}
