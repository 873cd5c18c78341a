//! The one way a microVM's thread comes to life, and what it may call from then on.
//!
//! Every thread the monitor owns is started by [`spawn`], and by nothing else. A thread started here
//! - has a name that a person finds in `ps -L` and in a report;
//! - takes no signal: all are blocked before its body runs, so the embedding process's handlers never run
//!   on it, and a process-directed signal finds one of the embedder's own threads;
//! - is jailed: a seccomp filter lets through what its [`Role`] needs, and no more. It goes on after the signals
//!   are blocked and before the work, on this thread alone: the process's other threads have none;
//! - opens and closes nothing: what it works on is made before it starts and dropped by whoever joins it;
//! - cannot take the process down by a panic: it is caught and handed to `report`, as is a normal return.
//!
//! The lists are in `role.rs`, each line with its reason. A call is let through, or it is *refused*: answered with an
//! error without being made, which costs whoever took the thread over all that the call could do, and the libraries
//! below us nothing; or it is a violation, and ends as the embedder's [`Jail`] says.
//!
//! | who takes a thread over | finds |
//! |---|---|
//! | wants files, sockets, programs, other processes | no call for any of them; the vsock broker has sockets of the Unix family, and never sees guest memory |
//! | wants to run code of its own | no memory that is both writable and executable, and no call that makes any executable |
//! | wants other threads' rights | the same memory, therefore [`Jail::enforce`] ends the process at the first violation |
//! | calls by another ABI (32-bit, x32) | killed: the program checks the architecture, numbers of x32 are in no list |
//!
//! **Panics** are told by the standard library's hook (or the embedder's) on the thread that panics, with its filter
//! on. The standard one writes to standard error, which is let through. With `RUST_BACKTRACE` set it would open files
//! besides; then (and only then) those calls are refused instead of being violations, and the backtrace has no names:
//! for those, use [`Jail::log`]. A hook of the embedder's that opens or connects would end the process, as would a
//! `log` implementation: both can hand what they have to another thread.
//!
//! All of this binds the VM's threads alone. A process that wants to be bound as a whole has [`lock`] for it.

mod compile;
mod jail;
pub mod lock;
mod role;
mod rule;
mod thread;
mod violation;

pub use jail::{Filter, Jail, JailError};
pub use role::Role;
pub use rule::{Arg, Call, Refusal, Rule, Value};
pub use thread::{End, Work, spawn};
pub use violation::Violation;
