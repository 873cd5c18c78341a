//! What the guest sent and the host's peer has not taken yet.
//!
//! What must hold: it never grows beyond the connection's window (whoever adds to it has checked the credit),
//! and an empty one has no memory.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use crate::virtio::{Chain, Memory, Short};

/// Bytes in order.
#[derive(Debug, Default)]
pub(super) struct Backlog(VecDeque<u8>);

impl Backlog {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds `len` bytes of what `chain` has to read, from `offset` on.
    pub fn add(&mut self, memory: &Memory, chain: &Chain, offset: usize, len: usize) -> Result<(), Short> {
        let before = self.0.len();
        self.0.resize(before.saturating_add(len), 0);
        // The new bytes may begin in either half of the ring.
        let (front, back) = self.0.as_mut_slices();
        let in_back = before.saturating_sub(front.len());
        let front = front.get_mut(before..).unwrap_or_default();
        let back = back.get_mut(in_back..).unwrap_or_default();
        let behind = offset.saturating_add(front.len());
        chain.read(memory, offset, front)?;
        chain.read(memory, behind, back)
    }

    /// Writes to `peer` what it takes, and returns how much that was.
    ///
    /// # Errors
    /// The peer takes nothing any more.
    pub fn flush(&mut self, mut peer: impl Write) -> io::Result<usize> {
        let mut total: usize = 0;
        while !self.is_empty() {
            let (front, back) = self.0.as_slices();
            match peer.write_vectored(&[IoSlice::new(front), IoSlice::new(back)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.0.drain(..count.min(self.0.len()));
                    total = total.saturating_add(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(total),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.clear();
        Ok(total)
    }
}
