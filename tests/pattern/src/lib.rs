//! Data that both ends of a device test can check.
//!
//! A [`Pattern`] is a sequence of bytes without repetition, told by a seed: whoever knows the seed can make any part
//! of it and say of any byte whether it belongs where it is. The tests use it from this library, their guests through
//! the program of the same name; neither has to be told what the other has seen.

pub mod exchange;
pub mod vsock;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes are made, written and checked in pieces of this size.
const PIECE: usize = 64 << 10;
const WORD: u64 = 8;

/// A sequence of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The sequence of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Makes the bytes from `offset` on.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        let first = offset / WORD;
        // What there is of the word in which `offset` lies.
        let skip = usize::try_from(offset % WORD).unwrap_or(0);
        let bytes = self.word(first).to_le_bytes();
        let start = bytes.get(skip..).unwrap_or_default();
        let (head, rest) = buffer.split_at_mut(start.len().min(buffer.len()));
        head.copy_from_slice(start.get(..head.len()).unwrap_or_default());

        let mut number = first;
        let mut words = rest.chunks_exact_mut(bytes.len());
        for word in &mut words {
            number = number.wrapping_add(1);
            word.copy_from_slice(&self.word(number).to_le_bytes());
        }
        let tail = words.into_remainder();
        let last = self.word(number.wrapping_add(1)).to_le_bytes();
        tail.copy_from_slice(last.get(..tail.len()).unwrap_or_default());
    }

    /// Sends the first `length` bytes.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub fn send(self, to: &mut impl Write, length: u64) -> io::Result<()> {
        self.pieces(0, length, |_, piece| to.write_all(piece))
    }

    /// Takes the first `length` bytes and checks them.
    ///
    /// # Errors
    /// Whatever the reader says, its end when it comes too early, and the first byte that is wrong.
    pub fn receive(self, from: &mut impl Read, length: u64) -> io::Result<()> {
        let mut found = vec![0; PIECE];
        self.pieces(0, length, |at, piece| {
            let found = found.get_mut(..piece.len()).unwrap_or_default();
            from.read_exact(found)?;
            compare(at, piece, found)
        })
    }

    /// Writes `length` bytes to a file, at the place they have in the sequence, and has them flushed.
    ///
    /// # Errors
    /// Whatever the file says.
    pub fn write(self, path: &Path, offset: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        self.pieces(offset, length, |at, piece| file.write_all_at(piece, at))?;
        file.sync_all()
    }

    /// Checks `length` bytes of a file.
    ///
    /// # Errors
    /// Whatever the file says, and the first byte that is wrong.
    pub fn check(self, path: &Path, offset: u64, length: u64) -> io::Result<()> {
        let file = File::open(path)?;
        let mut found = vec![0; PIECE];
        self.pieces(offset, length, |at, piece| {
            let found = found.get_mut(..piece.len()).unwrap_or_default();
            file.read_exact_at(found, at)?;
            compare(at, piece, found)
        })
    }

    fn pieces(
        self,
        offset: u64,
        length: u64,
        mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        let (mut at, end) = (offset, offset.saturating_add(length));
        while at < end {
            let size = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE).min(PIECE);
            let piece = buffer.get_mut(..size).unwrap_or_default();
            self.fill(at, piece);
            each(at, piece)?;
            at = at.saturating_add(size as u64);
        }
        Ok(())
    }

    /// The finalizer of splitmix64 over the word's number.
    fn word(self, number: u64) -> u64 {
        let mut word = self.seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

fn compare(at: u64, expected: &[u8], found: &[u8]) -> io::Result<()> {
    if expected == found {
        return Ok(());
    }
    let wrong = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
    let (byte, zeroes) = (at.saturating_add(wrong as u64), found.iter().all(|byte| *byte == 0));
    let all_zero = if zeroes { " (as is all of this piece: zeroes)" } else { "" };
    Err(io::Error::other(format!("byte {byte:#x} is not what was written{all_zero}")))
}

#[cfg(test)]
mod tests;
