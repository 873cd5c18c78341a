//! Name, signals, preparation, filter, body, report: in this order, once, for every thread.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread::{Builder, JoinHandle};

use crate::jail::{Filter, JailError};

/// Stack of each thread in bytes. Address space only: a page of it costs memory when it is first touched.
const STACK_BYTES: usize = 256 * 1024;

/// What every thread has at hand of its heap in bytes: more than the allocator likes to keep, so that it settles
/// how to give back (see `settle_allocator`).
const HEAP_LEAST: usize = 200 << 10;

/// How a thread's body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The body returned.
    Returned,
    /// The body, or the preparation for it, panicked; the text is the panic's message.
    Panicked(String),
    /// There could be no filter, which is why; the body has not run.
    NotJailed(String),
}

/// What a thread works on: made by whoever starts the thread, and dropped by whoever joins it.
///
/// So the thread itself has nothing to close, and its filter need not allow that.
pub trait Work: Send + 'static {
    /// What needs calls that the filter does not allow, and has to be done by the thread itself. Nothing of the
    /// guest's has been looked at.
    fn prepare(&mut self) {}

    /// How many bytes of its heap the thread is to have at hand: what the work allocates beyond, and for each of its
    /// allocations a page at least, is mapped by a call of its own. They cost address space until they are used. What
    /// any thread gets does for most.
    fn heap(&mut self) -> usize {
        0
    }

    /// The work, with the filter on.
    fn run(&mut self);
}

/// Starts a thread called `name` (Linux shows the first 15 bytes) that does `work` under the filter that `filter` gives
/// once the work is prepared, and then runs `report`, which is under it as well.
///
/// `report` runs on the new thread, exactly once, however the work ended. It is the caller's way to learn of the
/// end without joining, and should neither block for long nor panic.
///
/// # Errors
/// What the operating system said where it has no room for another thread; nothing was run then.
pub fn spawn<W: Work>(
    name: &str,
    filter: impl FnOnce(&mut W) -> Result<Filter, JailError> + Send + 'static,
    mut work: W,
    report: impl FnOnce(End) + Send + 'static,
) -> io::Result<JoinHandle<W>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        block_signals();
        let body = || -> Result<(), String> {
            work.prepare();
            settle_allocator(work.heap().max(HEAP_LEAST));
            let filter = filter(&mut work).map_err(|error| error.to_string())?;
            filter.install().map_err(|error| error.to_string())?;
            work.run();
            Ok(())
        };
        // After a panic, nothing of the work is looked at but by its drop.
        let end = match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => End::Returned,
            Ok(Err(error)) => End::NotJailed(error),
            Err(payload) => End::Panicked(message(payload.as_ref())),
        };
        report(end);
        work
    })
}

/// Has the allocator open so much of the thread's heap, which it cannot do later, and do what it does once in a process's
/// life: when glibc's first gives a part of a thread's heap back, it opens `/proc/sys/vm/overcommit_memory`.
#[cfg(target_env = "gnu")]
fn settle_allocator(bytes: usize) {
    /// Below what the allocator maps by itself.
    const PIECE: usize = 100 << 10;
    let pieces: Vec<Vec<u8>> = (0..bytes.div_ceil(PIECE)).map(|_| Vec::with_capacity(PIECE)).collect();
    drop(std::hint::black_box(pieces));
}

#[cfg(not(target_env = "gnu"))]
fn settle_allocator(_: usize) {}

/// Blocks every signal that can be blocked on the calling thread.
#[allow(unsafe_code, reason = "the standard library does not know signals")]
fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid (empty) set, sigfillset only writes to it, and pthread_sigmask reads
    // it and changes the mask of this thread alone. None can fail with these arguments.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
#[path = "thread_tests.rs"]
mod tests;
