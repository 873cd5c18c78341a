//! The one way a microVM's thread comes to life.
//!
//! Every thread the monitor owns is started by [`spawn`], and by nothing else. A thread started here
//! - has a name that a person finds in `ps -L` and in a report;
//! - takes no signal: all are blocked before its body runs, so the embedding process's handlers never run
//!   on it, and a process-directed signal finds one of the embedder's own threads;
//! - cannot take the process down with it: a panic is caught and handed to `report`, as is a normal return.
//!
//! This is also where a thread's seccomp filter will be installed: after the signals are blocked and before
//! the body, so that no body ever runs without it.

mod thread;

pub use thread::{End, spawn};
