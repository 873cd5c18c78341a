//! A descriptor chain, read once and checked: buffers for the device to read, then buffers for it to write.
//!
//! What must hold: every buffer of a [`Chain`] lies in guest memory, whole and in one region; no readable
//! one follows a writable one; there are at most [`MAX_BUFFERS`]; the lengths add up without overflow. A
//! chain holds guest addresses, never pointers, and nothing of it is read from the ring a second time.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, VolatileSlice};

use super::Memory;
use super::queue::Broken;

/// The most buffers in a chain: what one system call takes (`IOV_MAX`).
pub const MAX_BUFFERS: usize = 1024;

/// A piece of guest memory, checked to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address of its first byte.
    pub addr: GuestAddress,
    /// Its length in bytes; may be 0.
    pub len: u32,
}

/// A chain taken from a queue. Its memory is meant to be used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    head: u16,
    buffers: Vec<Buffer>,
    /// How many of the buffers are for the device to read: the first ones.
    readable: usize,
    readable_len: usize,
    writable_len: usize,
}

/// Less was there than was to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

impl Chain {
    /// An empty one, to be filled by [`Queue::pop`](super::Queue::pop).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The index of the chain's first descriptor, by which it is given back.
    #[must_use]
    pub fn head(&self) -> u16 {
        self.head
    }

    /// What the device may read.
    #[must_use]
    pub fn readable(&self) -> &[Buffer] {
        self.buffers.get(..self.readable).unwrap_or_default()
    }

    /// What the device may write.
    #[must_use]
    pub fn writable(&self) -> &[Buffer] {
        self.buffers.get(self.readable..).unwrap_or_default()
    }

    /// Bytes the device may read.
    #[must_use]
    pub fn readable_len(&self) -> usize {
        self.readable_len
    }

    /// Bytes the device may write.
    #[must_use]
    pub fn writable_len(&self) -> usize {
        self.writable_len
    }

    /// Copies the bytes from `offset` on of what the device may read.
    ///
    /// # Errors
    /// The chain has fewer; what `bytes` then holds is of no use.
    pub fn read(&self, memory: &Memory, offset: usize, bytes: &mut [u8]) -> Result<(), Short> {
        let mut rest = bytes;
        for slice in slices(memory, self.readable(), offset, rest.len()) {
            let (now, later) = rest.split_at_mut_checked(slice.len()).ok_or(Short)?;
            slice.read_slice(now, 0).map_err(|_| Short)?;
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(Short) }
    }

    /// Copies `bytes` to what the device may write, from `offset` on.
    ///
    /// # Errors
    /// The chain has no room for all of them; some may have been written.
    pub fn write(&self, memory: &Memory, offset: usize, bytes: &[u8]) -> Result<(), Short> {
        write(memory, self.writable(), offset, bytes)
    }

    pub(super) fn begin(&mut self, head: u16) {
        *self = Self { head, buffers: std::mem::take(&mut self.buffers), ..Self::default() };
        self.buffers.clear();
    }

    pub(super) fn push(&mut self, memory: &Memory, buffer: Buffer, writable: bool) -> Result<(), Broken> {
        let Buffer { addr, len } = buffer;
        let bytes = usize::try_from(len).map_err(|_| Broken::Address { addr: addr.0, len })?;
        if self.buffers.len() >= MAX_BUFFERS {
            return Err(Broken::TooLong { head: self.head });
        }
        if bytes != 0 && memory.get_slice(addr, bytes).is_err() {
            return Err(Broken::Address { addr: addr.0, len });
        }
        if writable {
            self.writable_len = self.writable_len.saturating_add(bytes);
        } else {
            if self.readable != self.buffers.len() {
                return Err(Broken::Order { head: self.head });
            }
            self.readable = self.readable.saturating_add(1);
            self.readable_len = self.readable_len.saturating_add(bytes);
        }
        self.buffers.push(buffer);
        Ok(())
    }
}

/// Copies `bytes` to `buffers`, from `offset` on.
///
/// # Errors
/// There is no room for all of them; some may have been written.
pub fn write(memory: &Memory, buffers: &[Buffer], offset: usize, bytes: &[u8]) -> Result<(), Short> {
    let mut rest = bytes;
    for slice in slices(memory, buffers, offset, rest.len()) {
        let (now, later) = rest.split_at_checked(slice.len()).ok_or(Short)?;
        slice.write_slice(now, 0).map_err(|_| Short)?;
        rest = later;
    }
    if rest.is_empty() { Ok(()) } else { Err(Short) }
}

/// The pieces of host memory behind `limit` bytes of `buffers` from `offset` on; fewer where there are
/// fewer. None of them is empty.
pub fn slices<'a>(
    memory: &'a Memory,
    buffers: &'a [Buffer],
    mut offset: usize,
    mut limit: usize,
) -> impl Iterator<Item = VolatileSlice<'a>> {
    buffers.iter().filter_map(move |buffer| {
        let len = usize::try_from(buffer.len).ok()?;
        let skip = offset.min(len);
        offset = offset.saturating_sub(skip);
        let count = len.saturating_sub(skip).min(limit);
        limit = limit.saturating_sub(count);
        if count == 0 {
            return None;
        }
        let addr = buffer.addr.0.checked_add(skip as u64)?;
        // The buffer was checked when it was taken from the ring, and memory does not change.
        memory.get_slice(GuestAddress(addr), count).ok()
    })
}
