//! A request: what a chain asks for, checked against the disk.
//!
//! Framing is the driver's choice (section 2.7.4): a request is the bytes for the device to read, a header
//! and then data, and those for it to write, data and then one byte of status, however many buffers they lie
//! in. What must hold: a request that is not refused lies within the disk, whole.

use std::ops::Range;

use virtio_bindings::virtio_blk as bindings;

use super::disk::Disk;
use super::protocol::{
    DISCARD_RANGES, DISCARD_SECTORS, HEADER_LEN, SECTOR, SERIAL_LEN, Status, ZERO_RANGES, ZERO_SECTORS,
    feature,
};
use crate::virtio::{Broken, Chain, Memory, Short};

/// The most bytes a request moves: what Linux moves in one system call (`MAX_RW_COUNT`).
const MAX_LEN: usize = 0x7fff_f000;
/// A range of a discard or write-zeroes request: first sector, number of sectors, flags.
const RANGE_LEN: usize = 16;
const UNMAP: u32 = bindings::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// Positions and lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read { at: u64, len: usize },
    Write { at: u64, len: usize },
    Flush,
    Serial,
    Discard(Vec<Range<u64>>),
    WriteZeroes { ranges: Vec<Range<u64>>, unmap: bool },
    Refused(Status),
}

impl Request {
    /// Reads the chain's request. The driver has agreed to `features`.
    pub(super) fn read(chain: &Chain, memory: &Memory, disk: &Disk, features: u64) -> Result<Self, Broken> {
        let broken = |what| Broken::Request { head: chain.head(), what };
        let mut header = [0; HEADER_LEN];
        chain.read(memory, 0, &mut header).map_err(|Short| broken("its header is short"))?;
        let room = chain.writable_len().checked_sub(1).ok_or(broken("it has no status byte"))?;
        let data = chain.readable_len().saturating_sub(HEADER_LEN);
        let [a, b, c, d, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        let agreed = |feature| if features & feature != 0 { Ok(()) } else { Err(Status::Unsupported) };
        let request = match u32::from_le_bytes([a, b, c, d]) {
            bindings::VIRTIO_BLK_T_IN => data_at(disk, sector, room).map(|at| Self::Read { at, len: room }),
            bindings::VIRTIO_BLK_T_OUT if disk.read_only => Err(Status::IoError),
            bindings::VIRTIO_BLK_T_OUT => data_at(disk, sector, data).map(|at| Self::Write { at, len: data }),
            bindings::VIRTIO_BLK_T_FLUSH => Ok(Self::Flush),
            bindings::VIRTIO_BLK_T_GET_ID if room < SERIAL_LEN => Err(Status::IoError),
            bindings::VIRTIO_BLK_T_GET_ID => Ok(Self::Serial),
            bindings::VIRTIO_BLK_T_DISCARD => agreed(feature::DISCARD).and_then(|()| {
                let (ranges, _) = ranges(chain, memory, disk, DISCARD_RANGES, DISCARD_SECTORS, 0)?;
                Ok(Self::Discard(ranges))
            }),
            bindings::VIRTIO_BLK_T_WRITE_ZEROES => agreed(feature::WRITE_ZEROES).and_then(|()| {
                let (ranges, flags) = ranges(chain, memory, disk, ZERO_RANGES, ZERO_SECTORS, UNMAP)?;
                Ok(Self::WriteZeroes { ranges, unmap: flags & UNMAP != 0 })
            }),
            _ => Err(Status::Unsupported),
        };
        Ok(request.unwrap_or_else(Self::Refused))
    }

    /// Bytes of payload, as the rate limit counts them.
    pub(super) fn payload(&self) -> u64 {
        match self {
            Self::Read { len, .. } | Self::Write { len, .. } => *len as u64,
            _ => 0,
        }
    }
}

/// Where on the disk `len` bytes from `sector` on are.
fn data_at(disk: &Disk, sector: u64, len: usize) -> Result<u64, Status> {
    if len > MAX_LEN || !(len as u64).is_multiple_of(SECTOR) {
        return Err(Status::IoError);
    }
    extent(disk, sector, len as u64).map(|range| range.start)
}

fn extent(disk: &Disk, sector: u64, len: u64) -> Result<Range<u64>, Status> {
    let start = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
    let end = start.checked_add(len).ok_or(Status::IoError)?;
    if end <= disk.size() { Ok(start..end) } else { Err(Status::IoError) }
}

/// The ranges behind the header, at most `max` of at most `sectors` each, and the flags of the last; a flag
/// that is not `allowed` is unsupported, as section 5.2.6.2 says.
fn ranges(
    chain: &Chain,
    memory: &Memory,
    disk: &Disk,
    max: u16,
    sectors: u32,
    allowed: u32,
) -> Result<(Vec<Range<u64>>, u32), Status> {
    let len = chain.readable_len().saturating_sub(HEADER_LEN);
    let count = len / RANGE_LEN;
    if count == 0 || count > max.into() || !len.is_multiple_of(RANGE_LEN) {
        return Err(Status::IoError);
    }
    let (mut ranges, mut last_flags) = (Vec::with_capacity(count), 0);
    for place in (HEADER_LEN..).step_by(RANGE_LEN).take(count) {
        let mut bytes = [0; RANGE_LEN];
        chain.read(memory, place, &mut bytes).map_err(|Short| Status::IoError)?;
        let [a, b, c, d, e, f, g, h, number @ .., i, j, k, l] = bytes;
        let (number, flags) = (u32::from_le_bytes(number), u32::from_le_bytes([i, j, k, l]));
        if flags & !allowed != 0 {
            return Err(Status::Unsupported);
        }
        if number > sectors {
            return Err(Status::IoError);
        }
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        ranges.push(extent(disk, first, u64::from(number).saturating_mul(SECTOR))?);
        last_flags = flags;
    }
    Ok((ranges, last_flags))
}
