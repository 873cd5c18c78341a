//! The back end: a file, its size, and what is done to it. Shared by the cards of all queues.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use vmm_sys_util::fallocate::{FallocateMode, fallocate};

use super::protocol::{SERIAL_LEN, feature};
use super::request::Request;
use super::spec::Cache;
use crate::host_io::{Span, pwrite};
use crate::virtio::BackEnd;

/// How much is written at once where the file system cannot make zeroes itself.
const ZEROES_LEN: usize = 16 << 10;

/// A disk.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) file: File,
    pub(super) read_only: bool,
    pub(super) block_size: u32,
    pub(super) serial: [u8; SERIAL_LEN],
    pub(super) cache: Cache,
    /// The byte of the configuration by which the driver chooses between write-back and write-through.
    pub(super) writeback: Arc<AtomicU8>,
    /// In bytes; whole blocks, the size of which is a power of two. Changed by a rescan alone.
    pub(super) size: AtomicU64,
}

/// Bytes that move between buffers and the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// Bytes of the buffers to skip.
    pub(super) skip: usize,
    pub(super) len: usize,
    /// Where on the disk.
    pub(super) at: u64,
}

impl Transfer {
    /// Calls as often as it takes to move all: every call but the last moves something. `done` says how much is done
    /// already, and when it returns, how much was done; `ended` is the error where a call moves nothing.
    pub(super) fn run(
        self,
        done: &mut usize,
        ended: ErrorKind,
        mut call: impl FnMut(u64, Span) -> io::Result<usize>,
    ) -> io::Result<()> {
        while let Some((at, span)) = self.rest(*done) {
            match call(at, span) {
                Ok(0) => return Err(ended.into()),
                Ok(count) => *done = done.saturating_add(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What is left to do, where `done` bytes are done.
    fn rest(&self, done: usize) -> Option<(u64, Span)> {
        let len = self.len.checked_sub(done).filter(|len| *len > 0)?;
        Some((self.at.checked_add(done as u64)?, Span { skip: self.skip.checked_add(done)?, len }))
    }
}

impl Disk {
    /// In bytes.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether a write is to be on stable storage when it completes (section 5.2.6.2), where the driver has
    /// agreed to `features`.
    pub(super) fn is_write_through(&self, features: u64) -> bool {
        if features & feature::CONFIG_WCE != 0 {
            self.writeback.load(Ordering::Relaxed) == 0
        } else if features & feature::FLUSH != 0 {
            self.cache == Cache::Writethrough
        } else {
            true
        }
    }

    /// All that was written is on stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        // What cannot be written has nothing to flush.
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    /// Carries out a discard, or a request to write zeroes.
    pub(super) fn make_room(&self, request: &Request) -> io::Result<()> {
        match request {
            Request::Discard(ranges) => ranges.iter().try_for_each(|range| self.discard(range)),
            Request::WriteZeroes { ranges, unmap } => {
                ranges.iter().try_for_each(|range| self.write_zeroes(range, *unmap))
            }
            _ => Ok(()),
        }
    }

    /// The guest needs these bytes no longer.
    pub(super) fn discard(&self, range: &Range<u64>) -> io::Result<()> {
        match self.allocate(FallocateMode::PunchHole, range) {
            // It is a hint: a file that cannot have holes keeps its bytes.
            Err(error) if is_unsupported(&error) => Ok(()),
            result => result,
        }
    }

    /// These bytes read as zeroes from now on; the host may have their room back, where `unmap`.
    pub(super) fn write_zeroes(&self, range: &Range<u64>, unmap: bool) -> io::Result<()> {
        let hole = FallocateMode::PunchHole;
        for mode in [unmap.then_some(hole), Some(FallocateMode::ZeroRange)].into_iter().flatten() {
            match self.allocate(mode, range) {
                Err(error) if is_unsupported(&error) => {}
                result => return result,
            }
        }
        let zeroes = [0; ZEROES_LEN];
        let len = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        Transfer { skip: 0, len, at: range.start }.run(&mut 0, ErrorKind::WriteZero, |at, span| {
            pwrite(&self.file, at, zeroes.get(..span.len).unwrap_or(&zeroes))
        })
    }

    fn allocate(&self, mode: FallocateMode, range: &Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let len = range.end.saturating_sub(range.start);
        fallocate(&self.file, mode, true, range.start, len).map_err(io::Error::from)
    }
}

impl BackEnd for Disk {
    /// What is less than a block at the end of the file is not there for the guest.
    fn look_again(&self) {
        match measure(&self.file) {
            Ok(len) => {
                let size = len & !u64::from(self.block_size.saturating_sub(1));
                self.size.store(size, Ordering::Relaxed);
            }
            Err(error) => log::warn!("cannot tell the size of a disk: {error}"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The lock would end with the file, but a ring that had it lets go of it some time later.
        let _: io::Result<()> = self.file.unlock();
    }
}

/// The length of a file or a block device.
pub(super) fn measure(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV))
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
