//! The io_uring engine: many requests of one queue in flight at once.
//!
//! The ring is made on the queue's thread as the first thing it does, before the thread is jailed: a VM does not
//! wait for it to start, and the jail lets neither `io_uring_setup` nor `io_uring_register` through. What the ring
//! itself may do is bounded before it is first used: vectored reads and writes and fsync, on the one registered file,
//! and nothing else (a ring could open files past any filter otherwise).
//!
//! What must hold, as the kernel reads and writes what an entry points to until its completion is there:
//! - An entry's buffers are pieces of guest memory that `memory` keeps mapped, listed in its slot's `vecs`.
//! - A slot is not touched from the push of its entry until its completion is taken.
//! - The engine waits for all completions before either goes away; where the kernel refuses even to wait,
//!   both are leaked rather than freed.
//!
//! There are as many slots as entries fit the ring, and the completion queue is twice as large, so that none
//! of them overflows; where all slots are taken, no more chains are.
#![allow(unsafe_code, reason = "the kernel works on guest memory after the call returns")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use vmm_sys_util::eventfd::EventFd;

use super::protocol::{HEADER_LEN, QUEUE_SIZE};
use super::request::Request;
use crate::host_io::{IoVecs, Span};
use crate::virtio::{Chain, Memory};

/// The one registered file.
const FILE: types::Fixed = types::Fixed(0);

/// A ring, and what is in flight.
pub(super) struct Uring {
    ring: IoUring,
    slots: Vec<Slot>,
    /// The slots that are not in flight.
    free: Vec<u16>,
    memory: Option<Arc<Memory>>,
}

/// A request in flight, or room for one. Its memory is used again for the next.
#[derive(Default)]
struct Slot {
    chain: Chain,
    vecs: IoVecs,
    /// There while it is in flight.
    request: Option<Request>,
}

/// A request that the kernel is done with.
pub(super) struct Completion<'a> {
    pub(super) chain: &'a Chain,
    pub(super) request: Request,
    /// How many bytes were moved.
    pub(super) result: io::Result<usize>,
}

impl Uring {
    /// A ring for `file`, to be used by the calling thread alone. What has completed is told by an edge of `completed`.
    pub(super) fn new(file: &File, completed: &EventFd) -> io::Result<Self> {
        // The best that the kernel has, or else what all have.
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_submit_all()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(QUEUE_SIZE.into())
            .or_else(|_| IoUring::builder().setup_r_disabled().build(QUEUE_SIZE.into()))?;
        let submitter = ring.submitter();
        submitter.register_files(&[file.as_raw_fd()])?;
        submitter.register_eventfd(completed.as_raw_fd())?;
        let operations = [opcode::Readv::CODE, opcode::Writev::CODE, opcode::Fsync::CODE];
        let flags = Flags::FIXED_FILE.bits();
        let mut restrictions = Vec::from(operations.map(Restriction::sqe_op));
        restrictions.extend([Restriction::sqe_flags_allowed(flags), Restriction::sqe_flags_required(flags)]);
        submitter.register_restrictions(&mut restrictions)?;
        submitter.register_enable_rings()?;
        Ok(Self { ring, slots: Vec::new(), free: Vec::new(), memory: None })
    }

    /// Requests are for a queue with this memory from now on. None is in flight.
    pub(super) fn start(&mut self, memory: Arc<Memory>) {
        self.memory = Some(memory);
        self.slots.resize_with(QUEUE_SIZE.into(), Slot::default);
        self.free.clear();
        self.free.extend(0..QUEUE_SIZE);
    }

    /// Lets go of the memory, both the guest's and that for requests. None is in flight.
    pub(super) fn stop(&mut self) {
        debug_assert_eq!(self.in_flight(), 0);
        (self.memory, self.slots, self.free) = (None, Vec::new(), Vec::new());
    }

    pub(super) fn in_flight(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Whether a request can be pushed.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Prepares a request, with the chain it came in; gives an empty chain back. What is no read and no write is a
    /// flush, or ends in one.
    ///
    /// # Errors
    /// There is no room for the request.
    pub(super) fn push(&mut self, chain: &mut Chain, request: Request, durable: bool) -> Result<(), Request> {
        let (Some(&index), Some(memory)) = (self.free.last(), &self.memory) else { return Err(request) };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Err(request) };
        let Slot { vecs, .. } = slot;
        let entry = match request {
            Request::Read { at, len } => {
                let (vecs, count) = vecs.describe(memory, chain.writable(), Span { skip: 0, len });
                opcode::Readv::new(FILE, vecs, count).offset(at).build()
            }
            Request::Write { at, len } => {
                let (vecs, count) = vecs.describe(memory, chain.readable(), Span { skip: HEADER_LEN, len });
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                opcode::Writev::new(FILE, vecs, count).offset(at).rw_flags(flags).build()
            }
            _ => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
        };
        if !queue(&mut self.ring, &entry.user_data(index.into())) {
            return Err(request);
        }
        self.free.pop();
        slot.request = Some(request);
        std::mem::swap(chain, &mut slot.chain);
        Ok(())
    }

    /// Hands the kernel all that was pushed, and has it finish what has come to an end.
    ///
    /// # Errors
    /// The kernel refuses; where that is transient, to be called again.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        // A call takes entries and finishes some of what has ended, but not all: of the rest it says only in the
        // ring that it is there. There are no more than slots, and one call for each does.
        for _ in 0..QUEUE_SIZE {
            let (submitter, queue, _) = self.ring.split();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            submitter.submit()?;
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    /// Hands the kernel all that was pushed, and waits until something has completed.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if is_transient(&error) => {}
                result => return result.map(|_| ()),
            }
        }
    }

    /// The next completion there is.
    pub(super) fn complete(&mut self) -> Option<Completion<'_>> {
        let entry = self.ring.completion().next()?;
        let index = u16::try_from(entry.user_data()).ok()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        let request = slot.request.take()?;
        self.free.push(index);
        let result = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(entry.result().saturating_neg()));
        Some(Completion { chain: &slot.chain, request, result })
    }
}

/// Whether to try again may help: a signal, or a shortage.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

fn queue(ring: &mut IoUring, entry: &Entry) -> bool {
    // SAFETY: `push` above, the only caller, has described the entry's buffers in the vectors of a free slot,
    // which is in flight from now on. The vectors are not touched, and guest memory stays mapped, until the
    // completion is taken: `complete` alone makes a slot free, and `stop` and `drop` let go of slots and memory
    // only once nothing is in flight.
    unsafe { ring.submission().push(entry) }.is_ok()
}

impl Drop for Uring {
    fn drop(&mut self) {
        while self.in_flight() > 0 {
            if let Err(error) = self.wait() {
                log::error!("requests to a disk are in flight and cannot be waited for: {error}");
                std::mem::forget((std::mem::take(&mut self.slots), self.memory.take()));
                return;
            }
            while self.complete().is_some() {}
        }
    }
}

#[cfg(test)]
#[path = "uring_tests.rs"]
mod tests;
