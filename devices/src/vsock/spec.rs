//! What a caller says of a vsock device, and the device that is made of it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::listener::Listener;
use super::mailbox::{Mailbox, Seats};
use super::worker::{RX, Streams, TX};
use crate::virtio::{Device, Kind};

/// The addresses a guest can have: 0 to 2 are the hypervisor's, its own loopback and the host, and the
/// highest means "any".
const CIDS: std::ops::RangeInclusive<u32> = 3..=0xffff_fffe;
/// What follows the path in the name of the socket of the highest port.
const LONGEST_SUFFIX: &str = "_4294967295";
/// What a socket's name may have, without the zero behind it.
const NAME_MOST: usize = 107;
/// Connections at once, unless the caller says otherwise. Each takes a descriptor of the process.
const CONNECTIONS: u16 = 1023;
/// What the caller can say at most.
const CONNECTIONS_MOST: u16 = 4095;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;

/// A socket device: streams between programs in the guest and on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vsock {
    cid: u32,
    path: PathBuf,
    connections: u16,
    timeouts: Timeouts,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    /// For the other side, once one has closed both directions; Linux waits as long.
    pub close: Duration,
    /// For a client's `CONNECT` line.
    pub line: Duration,
    /// For room in the queue of a program that listens; Linux's `connect` waits as long.
    pub dial: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { close: Duration::from_secs(8), line: Duration::from_secs(2), dial: Duration::from_secs(2) }
    }
}

/// Why a vsock device cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// An address that no guest can have.
    #[error("a guest's CID is from {} to {}, not {cid}", CIDS.start(), CIDS.end())]
    Cid {
        /// What the caller said.
        cid: u32,
    },
    /// No connections, or too many.
    #[error("a vsock device has from 1 to {CONNECTIONS_MOST} connections, not {connections}")]
    Connections {
        /// What the caller said.
        connections: u16,
    },
    /// The path is empty.
    #[error("the vsock device's socket has no path")]
    NoPath,
    /// The path leaves no room for a port behind it.
    #[error("{} has more bytes than the {most} that leave room for a port in a socket's name", path.display())]
    PathTooLong {
        /// What the caller said.
        path: PathBuf,
        /// The most bytes there can be.
        most: usize,
    },
    /// There is something already. It may be somebody's: it is not removed.
    #[error("{} exists already", path.display())]
    PathExists {
        /// What the caller said.
        path: PathBuf,
    },
    /// There can be no socket at the path.
    #[error("no socket can be made at {}", path.display())]
    Listen {
        /// What the caller said.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The host has no descriptors left.
    #[error("the host refuses a descriptor")]
    Descriptor(#[source] io::Error),
}

impl Vsock {
    /// A device through which the guest has the address `cid`, and programs on the host reach it through Unix
    /// sockets.
    ///
    /// To connect to a port P of the guest's, a program connects to the socket at `path`, writes `CONNECT P\n`
    /// and reads `OK n\n` once the guest has accepted; it reads the end of the stream where the guest refuses. To
    /// be connected to by the guest at port P, it listens at a socket of the same path with `_P` behind it.
    pub fn unix(cid: u32, path: impl Into<PathBuf>) -> Self {
        Self { cid, path: path.into(), connections: CONNECTIONS, timeouts: Timeouts::default() }
    }

    /// How many connections there can be at once: 1,023 where nothing is said, 4,095 at most. Each takes a
    /// descriptor of this process, which limits them (`RLIMIT_NOFILE`).
    #[must_use]
    pub fn connections(mut self, most: u16) -> Self {
        self.connections = most;
        self
    }

    #[cfg(test)]
    pub(super) fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Checks everything, makes the socket, and the device with it. The socket is removed when the device's
    /// workers end.
    ///
    /// # Errors
    /// What is wrong with the description, or with the host.
    pub fn build(self) -> Result<Device, VsockError> {
        let Self { cid, path, connections, timeouts } = self;
        if !CIDS.contains(&cid) {
            return Err(VsockError::Cid { cid });
        }
        if connections == 0 || connections > CONNECTIONS_MOST {
            return Err(VsockError::Connections { connections });
        }
        check(&path)?;
        let listener = Listener::bind(&path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => VsockError::PathExists { path: path.clone() },
            _ => VsockError::Listen { path: path.clone(), source },
        })?;

        let orders = Mailbox::new().map_err(VsockError::Descriptor)?;
        let deliveries = Mailbox::new().map_err(VsockError::Descriptor)?;
        let (to_broker, from_broker) = (Arc::clone(&orders), Arc::clone(&deliveries));
        let seats = Seats::default();
        let broker = Broker { listener, path, orders: to_broker, deliveries: from_broker, seats };
        let streams = Streams::new(cid.into(), connections, timeouts, orders, deliveries)
            .map_err(VsockError::Descriptor)?;
        Ok(Device {
            kind: Kind::Vsock,
            // No bit: streams, and nothing else.
            features: 0,
            config: u64::from(cid).to_le_bytes().into(),
            writable: None,
            queue_sizes: vec![QUEUE_SIZE; 3],
            cards: vec![(vec![RX, TX, super::worker::EVENT], Box::new(streams)), (vec![], Box::new(broker))],
            back_end: None,
        })
    }
}

fn check(path: &Path) -> Result<(), VsockError> {
    let len = path.as_os_str().as_bytes().len();
    let most = NAME_MOST.saturating_sub(LONGEST_SUFFIX.len());
    match len {
        0 => Err(VsockError::NoPath),
        len if len > most => Err(VsockError::PathTooLong { path: path.to_path_buf(), most }),
        _ => Ok(()),
    }
}
