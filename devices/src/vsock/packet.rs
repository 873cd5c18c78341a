//! The header in front of every packet (VIRTIO 1.2, section 5.10.6).

use crate::virtio::{Chain, Memory, Short};

/// Bytes of a header. All its fields are little-endian, and packed.
pub(super) const HEADER_LEN: usize = 44;
/// The host's address, as guests know it.
pub(super) const HOST_CID: u64 = 2;
/// The type of sockets there are here: streams.
pub(super) const STREAM: u16 = 1;

/// What a packet is for.
pub(super) mod op {
    pub const REQUEST: u16 = 1;
    pub const RESPONSE: u16 = 2;
    pub const RST: u16 = 3;
    pub const SHUTDOWN: u16 = 4;
    pub const RW: u16 = 5;
    pub const CREDIT_UPDATE: u16 = 6;
    pub const CREDIT_REQUEST: u16 = 7;
}

/// The flags of a SHUTDOWN: what its sender does no longer.
pub(super) mod shut {
    pub const RECEIVE: u32 = 1;
    pub const SEND: u32 = 2;
    pub const BOTH: u32 = RECEIVE | SEND;
}

/// Which connection a packet belongs to: the host's address and the guest's are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub guest_port: u32,
    pub host_port: u32,
}

/// A header, either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    /// Bytes of payload behind the header.
    pub len: u32,
    /// The type of the socket.
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    /// How much the sender would buffer for this connection.
    pub buf_alloc: u32,
    /// How many bytes the sender has taken out of that buffer since the connection began.
    pub fwd_cnt: u32,
}

impl Header {
    /// The header of a packet that the guest sends.
    pub fn read(memory: &Memory, chain: &Chain) -> Result<Self, Short> {
        let mut bytes = [0; HEADER_LEN];
        chain.read(memory, 0, &mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// Puts the header of a packet for the guest in its place.
    pub fn write(&self, memory: &Memory, chain: &Chain) -> Result<(), Short> {
        chain.write(memory, 0, &self.bytes())
    }

    /// Which connection a packet from the guest belongs to.
    pub fn key(&self) -> Key {
        Key { guest_port: self.src_port, host_port: self.dst_port }
    }

    /// A reset in answer to a packet from the guest, whatever it was.
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }

    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        // In the order of the fields on the wire.
        Self {
            src_cid: u64::from_le_bytes(take(&mut rest)),
            dst_cid: u64::from_le_bytes(take(&mut rest)),
            src_port: u32::from_le_bytes(take(&mut rest)),
            dst_port: u32::from_le_bytes(take(&mut rest)),
            len: u32::from_le_bytes(take(&mut rest)),
            kind: u16::from_le_bytes(take(&mut rest)),
            op: u16::from_le_bytes(take(&mut rest)),
            flags: u32::from_le_bytes(take(&mut rest)),
            buf_alloc: u32::from_le_bytes(take(&mut rest)),
            fwd_cnt: u32::from_le_bytes(take(&mut rest)),
        }
    }

    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut rest = bytes.as_mut_slice();
        put(&mut rest, self.src_cid.to_le_bytes());
        put(&mut rest, self.dst_cid.to_le_bytes());
        put(&mut rest, self.src_port.to_le_bytes());
        put(&mut rest, self.dst_port.to_le_bytes());
        put(&mut rest, self.len.to_le_bytes());
        put(&mut rest, self.kind.to_le_bytes());
        put(&mut rest, self.op.to_le_bytes());
        put(&mut rest, self.flags.to_le_bytes());
        put(&mut rest, self.buf_alloc.to_le_bytes());
        put(&mut rest, self.fwd_cnt.to_le_bytes());
        bytes
    }
}

/// The first `N` bytes of `rest`, which then begins behind them; the fields add up to a whole header.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (first, behind) = rest.split_first_chunk().unwrap_or((&[0; N], &[]));
    *rest = behind;
    *first
}

/// Puts `field` first in `rest`, which then begins behind it.
fn put<const N: usize>(rest: &mut &mut [u8], field: [u8; N]) {
    if let Some((first, behind)) = std::mem::take(rest).split_first_chunk_mut() {
        *first = field;
        *rest = behind;
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
