//! Virtio devices over MMIO (VIRTIO 1.2).
//!
//! ```text
//! driver --registers--> Transport --commands--> Worker --calls--> Card (block, net, vsock)
//!    ^                                                              |
//!    +------ Line (interrupt) <------ Queue <-----------------------+
//! ```
//!
//! - [`Transport`] owns the registers ([`RegisterPage`]) and the negotiation. It runs on vCPU threads.
//! - [`Worker`] is one thread of a device. It starts and stops the queues of its [`Card`] when the transport
//!   says so, and passes on kicks and events.
//! - A [`Card`] sees started [`Queue`]s, guest memory and its own back end. It takes a [`Chain`] from a
//!   queue, moves bytes, completes it.

mod chain;
mod device;
mod line;
mod page;
mod queue;
mod state;
mod stats;
mod transport;
mod worker;

pub mod mmio;

pub use chain::{Buffer, Chain, MAX_BUFFERS, Short, slices, write};
pub use device::{BackEnd, Card, Device, Events, Job, Kind};
pub use line::Line;
pub use page::{REGISTERS_SIZE, RegisterPage, RegisterPages};
pub use queue::{Broken, Queue, QueueError, QueueState};
pub use state::{RestoreError, TransportState};
pub use stats::{Counter, QueueCounts, QueueStats};
pub use transport::Transport;
pub use worker::{Worker, WorkerError};

/// A guest's memory. Nothing of it goes away, moves or appears while a device runs.
pub type Memory = vm_memory::GuestMemoryMmap<()>;
