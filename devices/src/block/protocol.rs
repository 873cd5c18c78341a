//! What driver and device agree on: features, configuration, limits (VIRTIO 1.2, sections 5.2.3 to 5.2.6).

use virtio_bindings::virtio_blk as bindings;

/// The unit of all positions and lengths, whatever the disk's block size is.
pub(super) const SECTOR: u64 = 512;

/// Entries of each queue.
pub(super) const QUEUE_SIZE: u16 = 256;
/// Buffers of data in a request: a chain is no longer than its queue, and has a header and a status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// The length of a request's header: type, reserved, first sector.
pub(super) const HEADER_LEN: usize = 16;
/// The length of the disk's serial number.
pub(super) const SERIAL_LEN: usize = bindings::VIRTIO_BLK_ID_BYTES as usize;

/// Ranges in one discard request.
pub(super) const DISCARD_RANGES: u16 = 16;
/// Sectors in each: 2 GiB.
pub(super) const DISCARD_SECTORS: u32 = 1 << 22;
/// Ranges in one write-zeroes request.
pub(super) const ZERO_RANGES: u16 = 1;
/// Sectors in it: 32 MiB, as they may have to be written one by one.
pub(super) const ZERO_SECTORS: u32 = 1 << 16;

/// Features, as bits.
pub(super) mod feature {
    use super::bindings;

    pub(in super::super) const SEG_MAX: u64 = 1 << bindings::VIRTIO_BLK_F_SEG_MAX;
    pub(in super::super) const READ_ONLY: u64 = 1 << bindings::VIRTIO_BLK_F_RO;
    pub(in super::super) const BLOCK_SIZE: u64 = 1 << bindings::VIRTIO_BLK_F_BLK_SIZE;
    pub(in super::super) const FLUSH: u64 = 1 << bindings::VIRTIO_BLK_F_FLUSH;
    pub(in super::super) const TOPOLOGY: u64 = 1 << bindings::VIRTIO_BLK_F_TOPOLOGY;
    pub(in super::super) const CONFIG_WCE: u64 = 1 << bindings::VIRTIO_BLK_F_CONFIG_WCE;
    pub(in super::super) const MULTI_QUEUE: u64 = 1 << bindings::VIRTIO_BLK_F_MQ;
    pub(in super::super) const DISCARD: u64 = 1 << bindings::VIRTIO_BLK_F_DISCARD;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << bindings::VIRTIO_BLK_F_WRITE_ZEROES;
}

/// The configuration's values that are not the same for all disks.
pub(super) struct Config {
    /// In sectors.
    pub(super) capacity: u64,
    pub(super) block_size: u32,
    /// How many blocks, as a power of two, are written as cheaply as one.
    pub(super) physical_block_exp: u8,
    pub(super) writeback: u8,
    pub(super) queues: u16,
}

impl Config {
    /// Where `capacity` is.
    pub(super) const CAPACITY: usize = 0;
    /// Where `writeback` is: the byte that the driver may write.
    pub(super) const WRITEBACK: usize = 32;

    /// `struct virtio_blk_config`, up to the fields of features that are never offered.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(60);
        bytes.extend(self.capacity.to_le_bytes());
        bytes.extend([0; 4]); // size_max
        bytes.extend(SEG_MAX.to_le_bytes());
        bytes.extend([0; 4]); // geometry
        bytes.extend(self.block_size.to_le_bytes());
        bytes.extend([self.physical_block_exp, 0]); // and alignment_offset
        bytes.extend((1u16 << self.physical_block_exp).to_le_bytes()); // min_io_size
        bytes.extend([0; 4]); // opt_io_size
        bytes.extend([self.writeback, 0]);
        bytes.extend(self.queues.to_le_bytes());
        bytes.extend(DISCARD_SECTORS.to_le_bytes());
        bytes.extend(u32::from(DISCARD_RANGES).to_le_bytes());
        bytes.extend((self.block_size >> SECTOR.ilog2()).to_le_bytes()); // discard_sector_alignment
        bytes.extend(ZERO_SECTORS.to_le_bytes());
        bytes.extend(u32::from(ZERO_RANGES).to_le_bytes());
        bytes.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
        bytes
    }
}

/// How a request ended, as its last byte says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}
