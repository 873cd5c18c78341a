//! A card whose TAP is a socket, for tests and fuzz targets: frames are datagrams, header first.
//!
//! There are no offloads to be told to a kernel, and no pair but the first can be enabled.

use std::io;
use std::os::unix::net::UnixDatagram;

use super::spec::Parts;
use super::tap::Tap;
use super::{Directions, features};
use crate::rate_limit::Limiter;
use crate::virtio::Device;

/// A card on one socket for each pair of queues.
///
/// # Errors
/// The host has no descriptors left.
pub fn fake(sockets: Vec<UnixDatagram>) -> io::Result<Device> {
    parts(sockets, Directions::default())?.assemble()
}

pub(super) fn parts(sockets: Vec<UnixDatagram>, limiters: Directions<Option<Limiter>>) -> io::Result<Parts> {
    let taps = sockets.into_iter().map(|socket| Tap::given(socket.into())).collect::<io::Result<_>>()?;
    let host = features::CSUM | features::HOST_TSO4 | features::HOST_TSO6;
    Ok(Parts { taps, host, mac: None, mtu: None, limiters })
}
