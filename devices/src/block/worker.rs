//! A queue's card: takes requests, has them carried out, completes them.
//!
//! What must hold:
//! - A turn takes at most as many chains as the queue has entries; what is left waits for the next turn, so
//!   that a reset, or another event, gets its own.
//! - While the rate limit makes the queue wait, no chain is taken; the timer ends that.
//! - A request that fails has a status; only a chain that is none breaks the queue.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use event_manager::EventSet;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::disk::{Disk, Transfer};
use super::protocol::{Config, HEADER_LEN, SECTOR, Status};
use super::request::Request;
use super::spec::BlockEngine;
use crate::host_io::IoVecs;
use crate::rate_limit::Limiter;
use crate::virtio::{Broken, Card, Chain, Events, Line, Queue, Short};

/// The card's own descriptors, by token.
const AGAIN: u32 = 0;
const TIMER: u32 = 1;

/// Completed chains are shown to the driver after so many, or so many bytes: later would cost latency,
/// earlier an interrupt for each.
const BATCH_CHAINS: u32 = 32;
const BATCH_BYTES: u64 = 256 << 10;

/// One queue of a disk.
pub(super) struct Worker {
    disk: Arc<Disk>,
    index: u16,
    /// Written where a turn ends with work left. Never read: its events are edges.
    again: EventFd,
    throttle: Option<Throttle>,
    session: Option<Session>,
    queue: Option<Queue>,
    chain: Chain,
    vecs: IoVecs,
    /// The size the driver knows of, in bytes.
    announced: u64,
}

/// From activation to deactivation.
struct Session {
    features: u64,
    line: Arc<Line>,
    /// A failed request has been logged.
    warned: bool,
}

/// The rate limit, shared by all queues of the disk, as it is the disk's: or a guest would have as many times
/// as much as it uses queues. And what wakes this queue.
pub(super) struct Throttle {
    limiter: Arc<Mutex<Limiter>>,
    /// Never read: its events are edges.
    timer: TimerFd,
    waiting: bool,
}

impl Throttle {
    pub(super) fn new(limiter: Arc<Mutex<Limiter>>) -> io::Result<Self> {
        Ok(Self { limiter, timer: TimerFd::new()?, waiting: false })
    }

    /// Whether the next request has to wait; the timer is then set.
    fn holds(&mut self) -> bool {
        let now = Instant::now();
        let wait = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).wait(now);
        // A timer that cannot be set would never end the wait: then there is none.
        self.waiting = wait.is_some_and(|wait| self.timer.reset(wait, None).is_ok());
        self.waiting
    }

    fn charge(&self, bytes: u64) {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).charge(bytes);
    }
}

/// Why no more chains are taken for the moment.
enum Pause {
    /// There are none.
    Empty,
    /// Those that are done are to be shown first.
    Batch,
    /// The rate limit.
    Throttled,
}

impl Worker {
    pub(super) fn new(
        disk: Arc<Disk>,
        index: u16,
        _engine: BlockEngine,
        throttle: Option<Throttle>,
    ) -> io::Result<Self> {
        let announced = disk.size();
        Ok(Self {
            disk,
            index,
            again: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            throttle,
            session: None,
            queue: None,
            chain: Chain::new(),
            vecs: IoVecs::new(),
            announced,
        })
    }

    /// One turn: all that the driver has made available, within bounds.
    fn serve(&mut self) -> Result<(), Broken> {
        let mut budget = self.queue.as_ref().map_or(0, Queue::size);
        while self.throttle.as_ref().is_none_or(|throttle| !throttle.waiting) {
            let Some(queue) = &mut self.queue else { break };
            queue.disable_kicks()?;
            let pause = self.take(&mut budget)?;
            let Some(queue) = &mut self.queue else { break };
            queue.publish()?;
            match pause {
                Pause::Empty if !queue.enable_kicks()? => break,
                _ if budget == 0 => {
                    // It fails only where the counter is at its maximum.
                    let _: io::Result<()> = self.again.write(1);
                    break;
                }
                Pause::Empty | Pause::Batch => {}
                Pause::Throttled => break,
            }
        }
        Ok(())
    }

    /// Takes chains and has them carried out.
    fn take(&mut self, budget: &mut u16) -> Result<Pause, Broken> {
        let Self { queue: Some(queue), session: Some(session), disk, throttle, chain, vecs, .. } = self
        else {
            return Ok(Pause::Empty);
        };
        let (mut chains, mut bytes) = (0u32, 0u64);
        while chains < BATCH_CHAINS && bytes < BATCH_BYTES && *budget > 0 {
            if !queue.pop(chain)? {
                return Ok(Pause::Empty);
            }
            if throttle.as_mut().is_some_and(Throttle::holds) {
                queue.rewind(1);
                queue.stats().throttled.add(1);
                return Ok(Pause::Throttled);
            }
            *budget = budget.saturating_sub(1);
            let request = Request::read(chain, queue.memory(), disk, session.features)?;
            if let Some(throttle) = throttle {
                throttle.charge(request.payload());
            }
            chains = chains.saturating_add(1);
            bytes = bytes.saturating_add(request.payload());
            let mut filled = 0;
            let status = carry_out(&request, disk, queue, chain, vecs, session, &mut filled);
            complete(queue, chain, status, filled)?;
        }
        Ok(Pause::Batch)
    }
}

/// Does what a request asks for; `filled` becomes how much of the chain, from its beginning on, was written.
fn carry_out(
    request: &Request,
    disk: &Disk,
    queue: &Queue,
    chain: &Chain,
    vecs: &mut IoVecs,
    session: &mut Session,
    filled: &mut usize,
) -> Status {
    let memory = &**queue.memory();
    let durable = disk.is_write_through(session.features);
    let settle = || if durable { disk.flush() } else { Ok(()) };
    let result = match request {
        Request::Read { at, len } => {
            let transfer = Transfer { memory, buffers: chain.writable(), skip: 0, len: *len, at: *at };
            disk.read(vecs, &transfer, filled)
        }
        Request::Write { at, len } => {
            let transfer =
                Transfer { memory, buffers: chain.readable(), skip: HEADER_LEN, len: *len, at: *at };
            disk.write(vecs, &transfer, &mut 0, durable)
        }
        Request::Flush => disk.flush(),
        Request::Serial => {
            *filled = disk.serial.len();
            chain.write(memory, 0, &disk.serial).map_err(|Short| io::ErrorKind::UnexpectedEof.into())
        }
        Request::Discard(ranges) => {
            ranges.iter().try_for_each(|range| disk.discard(range)).and_then(|()| settle())
        }
        Request::WriteZeroes { ranges, unmap } => {
            ranges.iter().try_for_each(|range| disk.write_zeroes(range, *unmap)).and_then(|()| settle())
        }
        Request::Refused(status) => {
            queue.stats().errors.add(1);
            log::debug!("a request to a disk was refused: {status:?}");
            return *status;
        }
    };
    match result {
        Ok(()) => {
            queue.stats().bytes.add(request.payload());
            Status::Ok
        }
        Err(error) => {
            session.failed(queue, request, &error);
            Status::IoError
        }
    }
}

impl Session {
    /// Counts a request that the host failed, and logs the first.
    fn failed(&mut self, queue: &Queue, request: &Request, error: &io::Error) {
        queue.stats().errors.add(1);
        if std::mem::replace(&mut self.warned, true) {
            log::debug!("a request to a disk failed: {request:?}: {error}");
        } else {
            log::warn!("a request to a disk failed, others may follow: {request:?}: {error}");
        }
    }
}

/// Writes the status, the last byte of the chain, and gives the chain back. `filled` bytes were written to it
/// from its beginning on: the status is one of those only where all before it was written.
fn complete(queue: &mut Queue, chain: &Chain, status: Status, filled: usize) -> Result<(), Broken> {
    let broken = Broken::Request { head: chain.head(), what: "it has no status byte" };
    let place = chain.writable_len().checked_sub(1).ok_or(broken)?;
    chain.write(queue.memory(), place, &[status as u8]).map_err(|Short| broken)?;
    let written = if filled == place { chain.writable_len() } else { filled };
    queue.complete(chain.head(), u32::try_from(written).unwrap_or(u32::MAX))
}

impl Card for Worker {
    fn activate(&mut self, features: u64, line: &Arc<Line>, events: &mut Events<'_, '_>) -> io::Result<()> {
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        self.session = Some(Session { features, line: Arc::clone(line), warned: false });
        events.add(&self.again, AGAIN, edge)?;
        if let Some(throttle) = &self.throttle {
            events.add(&throttle.timer, TIMER, edge)?;
        }
        // While nobody drove the device, the file may have changed its size.
        self.announce();
        Ok(())
    }

    fn start_queue(&mut self, queue: Queue, _: &mut Events<'_, '_>) {
        self.queue = Some(queue);
    }

    fn stop_queue(&mut self, index: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        self.queue.take_if(|queue| queue.index() == index)
    }

    fn deactivate(&mut self, events: &mut Events<'_, '_>) {
        events.remove(&self.again);
        if let Some(throttle) = &mut self.throttle {
            events.remove(&throttle.timer);
            throttle.waiting = false;
        }
        self.session = None;
    }

    fn kicked(&mut self, _: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.serve()
    }

    fn ready(&mut self, token: u32, _: EventSet, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        if let (TIMER, Some(throttle)) = (token, &mut self.throttle) {
            throttle.waiting = false;
        }
        self.serve()
    }

    fn rescan(&mut self) {
        // One card does it for all.
        if self.index != 0 {
            return;
        }
        if let Err(error) = self.disk.rescan() {
            log::warn!("cannot tell the size of a disk: {error}");
        }
        self.announce();
    }
}

impl Worker {
    /// Tells the driver of the disk's size, where it is not what it knows.
    fn announce(&mut self) {
        let size = self.disk.size();
        if let (0, Some(session)) = (self.index, &self.session)
            && self.announced != size
        {
            log::debug!("a disk of {} bytes has {size} now", self.announced);
            self.announced = size;
            session.line.change_config(Config::CAPACITY, &(size / SECTOR).to_le_bytes());
        }
    }
}
