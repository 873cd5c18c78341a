//! The virtio socket device (VIRTIO 1.2, section 5.10): streams between programs in the guest and programs on
//! the host, which has them as Unix sockets, by the convention of Firecracker and Cloud Hypervisor
//! ([`Vsock::unix`]).
//!
//! ```text
//! guest --queues--> Streams (worker) <--sockets, mailboxes--> Broker --> PATH, PATH_port
//! ```
//!
//! Why two threads: the worker reads what the guest writes, and a guest that took it over should find nothing
//! to call. It reads and writes sockets it is given; it has no use for `socket`, `connect`, `accept` or `close`, so
//! that its jail need not allow them. Opening and closing is the broker's, which sees no byte of the guest's memory and
//! reads none of any socket: two numbers come to it from there, a port and a serial number. Both begin when the driver is
//! up; until then programs of the host wait in the socket's queue.
//!
//! Only streams: the device offers no feature, which stands for them.
//!
//! What the guest sends goes from its memory to the socket and what the host sends the other way, each copied
//! once; only what a peer does not take at once is kept (`backlog.rs`), within the credit that the guest was given.
//!
//! | threat | answer |
//! |---|---|
//! | packets of any bytes, of connections that are not there, in any order | dropped, or answered by RST |
//! | more data than credit | RST |
//! | credit of any value | only compared: no more is sent than the guest has buffers for |
//! | connections without end | a table of a limited size; RST from there on |
//! | peers that do not read, on many connections | windows shrink from the 128th connection on |
//! | packets that make resets, and no room for these | at 256 that wait, no more packets are taken |
//! | buffers too small for a packet | given back empty |
//! | a driver that breaks the rules of the rings | all connections are closed; DEVICE_NEEDS_RESET |
//! | a host's peer that never reads, never writes, never closes | costs its connection only; 8 s to close |
//! | a host's peer that goes away | what it sent is delivered, then SHUTDOWN |
//!
//! The worker's threads run with all signals blocked: a write to a peer that has gone is an error, and its
//! signal reaches nobody.
//!
//! A device that is stopped closes all connections, be it for a reset or for a snapshot. Where the driver does not
//! know, its next packet of a connection is answered by RST; a driver that is restored is to be told by an event
//! instead, which is still to come: see `worker::EVENT`.

mod backlog;
mod broker;
mod calls;
mod connection;
mod dial;
mod line;
mod listener;
mod lobby;
mod mailbox;
mod packet;
mod receive;
mod socket;
mod spec;
mod table;
mod transmit;
mod worker;

pub use spec::{Vsock, VsockError};

#[cfg(test)]
mod tests;
