//! Name, signals, body, report: in this order, once, for every thread.

use std::any::Any;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::thread::{Builder, JoinHandle};

/// Stack of each thread in bytes. Address space only: a page of it costs memory when it is first touched.
const STACK_BYTES: usize = 256 * 1024;

/// How a thread's body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The body returned.
    Returned,
    /// The body panicked; the text is the panic's message.
    Panicked(String),
}

/// Starts a thread called `name` (Linux shows the first 15 bytes) that runs `body` and then `report`.
///
/// `report` runs on the new thread, exactly once, whether `body` returned or panicked. It is the caller's
/// way to learn of the end without joining, and should neither block for long nor panic.
///
/// # Errors
/// What the operating system said where it has no room for another thread; nothing was run then.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    report: impl FnOnce(End) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        block_signals();
        // The body owns what it uses, and after a panic nothing of it is looked at but the message.
        let end = match panic::catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => End::Returned,
            Err(payload) => End::Panicked(message(payload.as_ref())),
        };
        report(end);
    })
}

/// Blocks every signal that can be blocked on the calling thread.
fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid (empty) set, sigfillset only writes to it, and
    // pthread_sigmask reads it and changes the mask of this thread alone. Neither can fail with these
    // arguments.
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
