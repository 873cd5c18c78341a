//! A disk (VIRTIO 1.2, section 5.2) on a file or a block device of the host.
//!
//! - [`Block`] says what the disk is; [`Block::build`] opens and checks everything and makes the device.
//! - `request` reads a chain and decides what it asks for, against the disk's size and the agreed features.
//! - `disk` is the file and what is done to it by system calls; `uring` has it done by the kernel meanwhile.
//! - `worker` is the card: one for each queue, all on one disk.
//!
//! A write is as durable as the standard says (section 5.2.6.2): on stable storage when it completes, where
//! the driver chose write-through or agreed to neither CONFIG_WCE nor FLUSH; otherwise once a flush that was
//! sent after it completes. So a flush need not wait for requests that are in flight.
//!
//! System calls of a queue's thread, besides waiting for and writing eventfds: `preadv2`, `pwritev2`, `fallocate`,
//! `fdatasync`; with a ring, `io_uring_enter`.
//!
//! | threat | answer |
//! |---|---|
//! | a chain without a header or without a status byte | DEVICE_NEEDS_RESET |
//! | sectors past the end of the disk, sums that overflow, odd lengths | the request fails, nothing is touched |
//! | writes, discards to a read-only disk | fail; besides, the file is opened for reading alone |
//! | requests of unknown types, not agreed on, with reserved flags | VIRTIO_BLK_S_UNSUPP |
//! | lists of ranges that are long, or name huge ranges | bounded by what the configuration says |
//! | the list changed while it is worked through | read once, then checked |
//! | one request that moves the whole disk many times over | refused beyond what one system call moves |
//! | chains without end, to starve other queues or a reset | a turn takes as many as the queue has entries |
//! | a request fails in a loop, to fill the host's log | one warning per activation |

mod disk;
mod protocol;
mod request;
mod spec;
mod uring;
mod worker;

#[cfg(test)]
mod tests;

pub use spec::{Block, BlockEngine, BlockError, Cache};
