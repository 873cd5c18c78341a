//! A queue's card: takes requests, has them carried out, completes them.
//!
//! What must hold:
//! - A turn takes at most as many chains as the queue has entries; what is left waits for the next turn, so
//!   that a reset, or another event, gets its own.
//! - While the rate limit makes the queue wait, no chain is taken; the card is called when that is over.
//! - A request that fails has a status; only a chain that is none breaks the queue.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use event_manager::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::disk::{Disk, Transfer};
use super::protocol::{Config, HEADER_LEN, SECTOR, Status};
use super::request::Request;
use super::spec::BlockEngine;
use super::uring::{Completion, Uring, is_transient};
use crate::eventfd;
use crate::host_io::IoVecs;
use crate::throttle::Throttle;
use crate::virtio::{Broken, Card, Chain, Events, Job, Line, Queue, Short};

/// The token of the card's own descriptor.
const AGAIN: u32 = 0;

/// Completed chains are shown to the driver after so many, or so many bytes: later would cost latency,
/// earlier an interrupt for each.
const BATCH_CHAINS: u32 = 32;
const BATCH_BYTES: u64 = 256 << 10;

/// One queue of a disk.
pub(super) struct Worker {
    disk: Arc<Disk>,
    index: u16,
    /// Written where a turn ends with work left, and by the ring where something has completed. Never read: its
    /// events are edges.
    again: EventFd,
    throttle: Throttle,
    /// The engine that was asked for is io_uring, and there is none that cannot be had.
    by_ring: bool,
    uring: Option<Uring>,
    /// A ring that was given up: it cannot be closed in the thread's jail.
    useless: Option<Uring>,
    session: Option<Session>,
    queue: Option<Queue>,
    chain: Chain,
    /// For system calls.
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
    /// Flushes are the ring's: the thread's jail has no call for them.
    flushes_by_ring: bool,
}

/// Why no more chains are taken for the moment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// There are none.
    Empty,
    /// Those that are done are to be shown first.
    Batch,
    /// The rate limit.
    Throttled,
    /// As many are in flight as can be.
    Full,
}

impl Worker {
    pub(super) fn new(
        disk: Arc<Disk>,
        index: u16,
        engine: BlockEngine,
        throttle: Throttle,
    ) -> io::Result<Self> {
        let announced = disk.size();
        Ok(Self {
            disk,
            index,
            again: eventfd()?,
            throttle,
            by_ring: engine == BlockEngine::IoUring,
            uring: None,
            useless: None,
            session: None,
            queue: None,
            chain: Chain::new(),
            vecs: IoVecs::new(),
            announced,
        })
    }

    /// One turn: what has completed, and all that the driver has made available, within bounds.
    fn serve(&mut self) -> Result<(), Broken> {
        let mut budget = self.queue.as_ref().map_or(0, Queue::size);
        loop {
            let pause = self.take(&mut budget)?;
            let freed = self.collect()?;
            let Some(queue) = &mut self.queue else { return Ok(()) };
            queue.publish()?;
            match pause {
                Pause::Empty if !queue.enable_kicks()? => return Ok(()),
                // The card is called when the wait is over.
                Pause::Throttled => return Ok(()),
                Pause::Full if !freed => return Ok(()),
                _ if budget == 0 => {
                    self.call_again();
                    return Ok(());
                }
                Pause::Empty | Pause::Batch | Pause::Full => {}
            }
        }
    }

    fn call_again(&self) {
        // It fails only where the counter is at its maximum, and then there are events to come.
        let _: io::Result<()> = self.again.write(1);
    }

    /// Takes chains, and carries out what they ask for or has the ring do it.
    fn take(&mut self, budget: &mut u16) -> Result<Pause, Broken> {
        let Self { queue: Some(queue), session: Some(session), disk, throttle, uring, chain, vecs, .. } =
            self
        else {
            return Ok(Pause::Empty);
        };
        if throttle.waits() {
            return Ok(Pause::Throttled);
        }
        queue.disable_kicks()?;
        let (mut chains, mut bytes) = (0u32, 0u64);
        while chains < BATCH_CHAINS && bytes < BATCH_BYTES && *budget > 0 {
            if uring.as_ref().is_some_and(|uring| !uring.has_room()) {
                return Ok(Pause::Full);
            }
            if !queue.pop(chain)? {
                return Ok(Pause::Empty);
            }
            if !throttle.admits() {
                queue.rewind(1);
                queue.stats().throttled.add(1);
                return Ok(Pause::Throttled);
            }
            *budget = budget.saturating_sub(1);
            let request = Request::read(chain, queue.memory(), disk, session.features)?;
            let payload = request.payload();
            throttle.charge(payload);
            chains = chains.saturating_add(1);
            bytes = bytes.saturating_add(payload);
            let left = match uring {
                Some(uring) if session.leads_to_ring(&request, disk) => {
                    uring.push(chain, request, disk.is_write_through(session.features))
                }
                _ => Err(request),
            };
            if let Err(request) = left {
                let (status, filled) = session.carry_out(&request, 0, disk, queue, chain, vecs);
                complete(queue, chain, status, filled)?;
            }
        }
        Ok(Pause::Batch)
    }

    /// Has the ring do what was pushed, and completes what it has done; true where there was something.
    fn collect(&mut self) -> Result<bool, Broken> {
        let Self { queue: Some(queue), session: Some(session), disk, uring: Some(uring), vecs, .. } = self
        else {
            return Ok(false);
        };
        let submitted = uring.submit();
        let mut any = false;
        // Bounded: nothing is pushed meanwhile.
        while let Some(Completion { chain, request, result }) = uring.complete() {
            any = true;
            let moves = matches!(request, Request::Read { .. } | Request::Write { .. });
            // Less than all is rare; the rest, and why there was less, is for system calls.
            let (status, filled) = match result {
                Ok(done) if moves => session.carry_out(&request, done, disk, queue, chain, vecs),
                Err(error) if moves && is_transient(&error) => {
                    session.carry_out(&request, 0, disk, queue, chain, vecs)
                }
                result => (session.status(&request, result.map(drop), queue), 0),
            };
            complete(queue, chain, status, filled)?;
        }
        match submitted {
            Ok(()) => {}
            Err(error) if is_transient(&error) => self.call_again(),
            Err(error) => session.fail(&error),
        }
        Ok(any)
    }

    /// Waits for all that is in flight, and completes it.
    fn drain(&mut self) {
        while self.uring.as_ref().is_some_and(|uring| uring.in_flight() > 0) {
            if let Some(uring) = self.uring.take_if(|uring| uring.wait().is_err()) {
                // What cannot be waited for is given up with all that belongs to it.
                self.useless = Some(uring);
            }
            // A used ring out of reach is the driver's loss; the wait goes on.
            let _: Result<bool, Broken> = self.collect();
        }
    }

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

impl Session {
    /// Whether this is a request for the ring, where there is one: all that move bytes, and all that end in a flush. What
    /// comes before such a flush is done here; where that fails, what fails again tells why.
    fn leads_to_ring(&self, request: &Request, disk: &Disk) -> bool {
        match request {
            Request::Read { .. } | Request::Write { .. } | Request::Flush => true,
            Request::Discard(_) | Request::WriteZeroes { .. } => {
                self.flushes_by_ring
                    && disk.is_write_through(self.features)
                    && disk.make_room(request).is_ok()
            }
            Request::Serial | Request::Refused(_) => false,
        }
    }

    /// Does what a request asks for, of which `done` bytes are done already. Gives its status, and how much of
    /// the chain, from its beginning on, was written.
    fn carry_out(
        &mut self,
        request: &Request,
        mut done: usize,
        disk: &Disk,
        queue: &Queue,
        chain: &Chain,
        vecs: &mut IoVecs,
    ) -> (Status, usize) {
        let memory = &**queue.memory();
        let durable = disk.is_write_through(self.features);
        // A ring that is there has been given these; one that was given up has been told of.
        let flush = || if self.flushes_by_ring { Err(ErrorKind::Unsupported.into()) } else { disk.flush() };
        let settle = || if durable { flush() } else { Ok(()) };
        let mut filled = 0;
        let result = match request {
            &Request::Read { at, len } => {
                let read = |at, span| vecs.preadv(&disk.file, at, memory, chain.writable(), span);
                let result = Transfer { skip: 0, len, at }.run(&mut done, ErrorKind::UnexpectedEof, read);
                filled = done;
                result
            }
            &Request::Write { at, len } => {
                let write = |at, span| vecs.pwritev(&disk.file, at, durable, memory, chain.readable(), span);
                Transfer { skip: HEADER_LEN, len, at }.run(&mut done, ErrorKind::WriteZero, write)
            }
            Request::Flush => flush(),
            Request::Serial => {
                filled = disk.serial.len();
                chain.write(memory, 0, &disk.serial).map_err(|Short| ErrorKind::UnexpectedEof.into())
            }
            Request::Discard(_) | Request::WriteZeroes { .. } => {
                disk.make_room(request).and_then(|()| settle())
            }
            Request::Refused(status) => {
                queue.stats().errors.add(1);
                log::debug!("a request to a disk was refused: {status:?}");
                return (*status, 0);
            }
        };
        (self.status(request, result, queue), filled)
    }

    /// Counts a request that was carried out, and logs the first that the host failed.
    fn status(&mut self, request: &Request, result: io::Result<()>, queue: &Queue) -> Status {
        let Err(error) = result else {
            queue.stats().bytes.add(request.payload());
            return Status::Ok;
        };
        queue.stats().errors.add(1);
        if std::mem::replace(&mut self.warned, true) {
            log::debug!("a request to a disk failed: {request:?}: {error}");
        } else {
            log::warn!("a request to a disk failed, others may follow: {request:?}: {error}");
        }
        Status::IoError
    }

    /// The ring is of no use any more.
    fn fail(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("a disk needs a reset: its requests cannot be handed to the host: {error}");
        }
        self.line.needs_reset();
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
    fn job(&self) -> Job {
        if self.by_ring { Job::DiskRing } else { Job::Disk }
    }

    /// Makes the ring, where one is wanted; without one, system calls do.
    fn prepare(&mut self) {
        if self.by_ring {
            let ring = Uring::new(&self.disk.file, &self.again);
            self.uring = ring
                .inspect_err(|error| log::warn!("no io_uring for a disk, system calls do instead: {error}"))
                .ok();
            self.by_ring = self.uring.is_some();
        }
    }

    fn register(&mut self, events: &mut Events<'_, '_>) -> io::Result<()> {
        events.add(&self.again, AGAIN, EventSet::IN | EventSet::EDGE_TRIGGERED)
    }

    fn activate(&mut self, features: u64, line: &Arc<Line>, _: &mut Events<'_, '_>) -> io::Result<()> {
        self.session =
            Some(Session { features, line: Arc::clone(line), warned: false, flushes_by_ring: self.by_ring });
        // While nobody drove the device, the file may have changed its size.
        self.announce();
        Ok(())
    }

    fn start_queue(&mut self, queue: Queue, _: &mut Events<'_, '_>) {
        if let Some(uring) = &mut self.uring {
            uring.start(Arc::clone(queue.memory()));
        }
        self.queue = Some(queue);
    }

    fn stop_queue(&mut self, index: u16, _: &mut Events<'_, '_>) -> Option<Queue> {
        self.queue.as_ref().filter(|queue| queue.index() == index)?;
        self.drain();
        if let Some(uring) = &mut self.uring {
            uring.stop();
        }
        self.queue.take()
    }

    fn deactivate(&mut self, _: &mut Events<'_, '_>) {
        self.throttle.clear();
        self.session = None;
    }

    fn kicked(&mut self, _: u16, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.serve()
    }

    fn ready(&mut self, _: u32, _: EventSet, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.serve()
    }

    fn patience(&self) -> Option<Duration> {
        self.throttle.patience()
    }

    fn due(&mut self, _: &mut Events<'_, '_>) -> Result<(), Broken> {
        self.throttle.clear();
        self.serve()
    }

    fn rescan(&mut self) {
        self.announce();
    }
}
