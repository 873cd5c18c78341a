//! Name, signals, preparation, filter, body, report: in this order, once, for every thread.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread::{Builder, JoinHandle};

use crate::jail::Filter;

/// Stack of each thread in bytes. Address space only: a page of it costs memory when it is first touched.
const STACK_BYTES: usize = 256 * 1024;

/// How a thread's body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The body returned.
    Returned,
    /// The body, or the preparation for it, panicked; the text is the panic's message.
    Panicked(String),
    /// The filter could not be installed, which is why; the body has not run.
    NotJailed(String),
}

/// What a thread works on: made by whoever starts the thread, and dropped by whoever joins it.
///
/// So the thread itself has nothing to close, and its filter need not allow that.
pub trait Work: Send + 'static {
    /// What needs calls that the filter does not allow, and has to be done by the thread itself. Nothing of the
    /// guest's has been looked at.
    fn prepare(&mut self) {}

    /// The work, with the filter on.
    fn run(&mut self);
}

/// Starts a thread called `name` (Linux shows the first 15 bytes) that does `work` under `filter`, and then runs
/// `report`, which is under it as well.
///
/// `report` runs on the new thread, exactly once, however the work ended. It is the caller's way to learn of the
/// end without joining, and should neither block for long nor panic.
///
/// # Errors
/// What the operating system said where it has no room for another thread; nothing was run then.
pub fn spawn<W: Work>(
    name: &str,
    filter: &Filter,
    mut work: W,
    report: impl FnOnce(End) + Send + 'static,
) -> io::Result<JoinHandle<W>> {
    let filter = filter.clone();
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        block_signals(filter.traps);
        let body = || -> io::Result<()> {
            work.prepare();
            settle_allocator();
            filter.install()?;
            work.run();
            Ok(())
        };
        // After a panic, nothing of the work is looked at but by its drop.
        let end = match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(())) => End::Returned,
            Ok(Err(error)) => End::NotJailed(error.to_string()),
            Err(payload) => End::Panicked(message(payload.as_ref())),
        };
        report(end);
        work
    })
}

/// Has the allocator do now what it does once in a process's life: when glibc's first gives a part of a thread's heap
/// back, it opens `/proc/sys/vm/overcommit_memory`, which would be a violation later. For that, two pieces are enough
/// that make the heap larger than it likes to keep.
#[cfg(target_env = "gnu")]
fn settle_allocator() {
    const PIECE: usize = 100 << 10;
    drop(std::hint::black_box([Vec::<u8>::with_capacity(PIECE), Vec::with_capacity(PIECE)]));
}

#[cfg(not(target_env = "gnu"))]
fn settle_allocator() {}

/// Blocks every signal that can be blocked on the calling thread, but `SIGSYS` where a handler is to take it.
#[allow(unsafe_code, reason = "the standard library does not know signals")]
fn block_signals(but_sigsys: bool) {
    // SAFETY: an all-zero sigset_t is a valid (empty) set, sigfillset and sigdelset only write to it, and
    // pthread_sigmask reads it and changes the mask of this thread alone. None can fail with these
    // arguments.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        if but_sigsys {
            libc::sigdelset(&raw mut all, libc::SIGSYS);
        }
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
