//! The feature bits of a network card (VIRTIO 1.2, section 5.1.3), and what they mean to a TAP.
//!
//! There are two directions. `GUEST_*`: what the driver can take unfinished, which the kernel has to be told,
//! since it finishes what it is not told. `HOST_*`: what the kernel takes unfinished, which it does whenever
//! it knows how.

use std::io;

use super::tap::Tap;

pub(super) const CSUM: u64 = 1 << 0;
pub(super) const GUEST_CSUM: u64 = 1 << 1;
pub(super) const MTU: u64 = 1 << 3;
pub(super) const MAC: u64 = 1 << 5;
pub(super) const GUEST_TSO4: u64 = 1 << 7;
pub(super) const GUEST_TSO6: u64 = 1 << 8;
pub(super) const GUEST_ECN: u64 = 1 << 9;
pub(super) const GUEST_UFO: u64 = 1 << 10;
pub(super) const HOST_TSO4: u64 = 1 << 11;
pub(super) const HOST_TSO6: u64 = 1 << 12;
pub(super) const HOST_ECN: u64 = 1 << 13;
pub(super) const HOST_UFO: u64 = 1 << 14;
pub(super) const MRG_RXBUF: u64 = 1 << 15;
pub(super) const STATUS: u64 = 1 << 16;
pub(super) const CTRL_VQ: u64 = 1 << 17;
pub(super) const MQ: u64 = 1 << 22;
pub(super) const GUEST_USO4: u64 = 1 << 54;
pub(super) const GUEST_USO6: u64 = 1 << 55;
pub(super) const HOST_USO: u64 = 1 << 56;

/// What every kernel with TAP does.
const CHECKSUM: u64 = CSUM | GUEST_CSUM;
const TSO: u64 = GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | HOST_TSO4 | HOST_TSO6 | HOST_ECN;
/// What kernels do that know `TUN_F_UFO`, and `TUN_F_USO4` (Linux 6.2).
const UFO: u64 = GUEST_UFO | HOST_UFO;
const USO: u64 = GUEST_USO4 | GUEST_USO6 | HOST_USO;

/// The kernel's USO is for both kinds of IP or none.
const TUN_USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// The offloads that the host takes, as feature bits. Afterwards none is set.
pub(super) fn probe(tap: &Tap) -> io::Result<u64> {
    let offered = [CHECKSUM | TSO | UFO | USO, CHECKSUM | TSO | USO, CHECKSUM | TSO | UFO, CHECKSUM | TSO]
        .into_iter()
        .find(|features| tap.set_offloads(offloads(*features)).is_ok())
        .unwrap_or(0);
    tap.set_offloads(0)?;
    Ok(offered)
}

/// What to tell the kernel of a driver that has accepted `features`.
///
/// Each is told only together with those it depends on (section 5.1.3.1), whatever the driver says; the
/// kernel would refuse them all otherwise.
pub(super) fn offloads(features: u64) -> u32 {
    let has = |feature| features & feature == feature;
    if !has(GUEST_CSUM) {
        return 0;
    }
    let any_tso = has(GUEST_TSO4) || has(GUEST_TSO6);
    let offloads = [
        (has(GUEST_TSO4), libc::TUN_F_TSO4),
        (has(GUEST_TSO6), libc::TUN_F_TSO6),
        (any_tso && has(GUEST_ECN), libc::TUN_F_TSO_ECN),
        (has(GUEST_UFO), libc::TUN_F_UFO),
        (has(GUEST_USO4 | GUEST_USO6), TUN_USO),
    ];
    offloads.into_iter().filter(|(told, _)| *told).fold(libc::TUN_F_CSUM, |all, (_, offload)| all | offload)
}

/// The pairs of queues that the driver can make use of, and where its control queue is, if it has one: behind
/// all the pairs that there can be (section 5.1.2).
pub(super) fn control_queue(features: u64, pairs: u16) -> Option<u16> {
    let pairs = if features & MQ != 0 { pairs } else { 1 };
    (features & CTRL_VQ != 0).then(|| pairs.saturating_mul(2))
}
