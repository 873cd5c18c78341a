//! The 16550A serial port, in front of `vm-superio`'s model of it.
//!
//! Bytes the guest sends are put in a buffer for the owner to take ([`SerialPort::take_output`]); nothing is
//! written anywhere from a register access. Bytes for the guest wait in the 64-byte receive FIFO.
//!
//! | threat | answer |
//! |---|---|
//! | a guest sends without end | the buffer grows by one byte per access; the owner stops running the vCPU above [`SerialPort::output_len`] of its choice |
//! | a guest never reads | [`SerialPort::receive`] takes at most what the FIFO holds |
//! | a guest sets loopback mode | input is refused (`receive` returns 0) until it leaves it |
//! | a guest writes any register at any time | the model masks what it does not implement |

use std::convert::Infallible;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::Interrupt;

/// How many ports (one-byte registers) the device takes.
pub const REGISTERS: u16 = 8;

/// A 16550A whose line is an [`Interrupt`].
pub struct SerialPort<I: Interrupt> {
    uart: Serial<Line<I>, NoEvents, Vec<u8>>,
}

impl<I: Interrupt> SerialPort<I> {
    /// A port in its reset state.
    pub fn new(interrupt: I) -> Self {
        Self { uart: Serial::new(Line(interrupt), Vec::new()) }
    }

    /// The guest reads the register at `offset` (0-7); others read as 0.
    pub fn read(&mut self, offset: u8) -> u8 {
        self.uart.read(offset)
    }

    /// The guest writes the register at `offset` (0-7); others are ignored.
    pub fn write(&mut self, offset: u8, value: u8) {
        // The output is a buffer and the line cannot fail, so the model has no error left to report.
        let _: Result<(), _> = self.uart.write(offset, value);
    }

    /// Offers bytes to the guest and returns how many the FIFO took: 0 where it is full or in loopback.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.uart.enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    /// How many bytes [`take_output`](Self::take_output) would give.
    #[must_use]
    pub fn output_len(&self) -> usize {
        self.uart.writer().len()
    }

    /// Exchanges what the guest has sent so far for `empty`, whose capacity is used for what it sends next.
    pub fn take_output(&mut self, mut empty: Vec<u8>) -> Vec<u8> {
        empty.clear();
        std::mem::replace(self.uart.writer_mut(), empty)
    }
}

/// The model's view of an [`Interrupt`].
struct Line<I>(I);

impl<I: Interrupt> Trigger for Line<I> {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        // A lost edge shows to the guest as a device that is slow; there is nobody else to tell, and the
        // model would pass a failure on by dropping bytes it has already taken.
        let _: std::io::Result<()> = self.0.signal();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
