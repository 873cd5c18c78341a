//! The 16550A serial port, in front of `vm-superio`'s model of it.
//!
//! Bytes the guest sends are put in a buffer for the owner to take ([`SerialPort::take_output`]); nothing is
//! written anywhere from a register access. Bytes for the guest wait in the 64-byte receive FIFO.
//!
//! A driver asks the line status before every byte it sends. Reading that register changes nothing, nor does reading the
//! two behind it. So they are bytes of a page, which can be mapped into the guest ([`SerialPort::new`]): a driver that
//! sends then causes no exit but by the byte itself, and whoever owns the port may be told of that later
//! ([`SerialPort::may_lag`]).
//!
//! | threat | answer |
//! |---|---|
//! | a guest sends without end | the buffer grows by one byte per access; the owner stops running the vCPU above [`SerialPort::output_len`] of its choice |
//! | a guest never reads | [`SerialPort::receive`] takes at most what the FIFO holds |
//! | a guest sets loopback mode | input is refused (`receive` returns 0) until it leaves it |
//! | a guest writes any register at any time | the model masks what it does not implement |

use std::cell::Cell;
use std::convert::Infallible;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

use crate::Interrupt;
use crate::virtio::RegisterPage;

/// How many ports (one-byte registers) the device takes.
pub const REGISTERS: u16 = 8;
/// The register that a byte to be sent is written to.
pub const TRANSMIT: u8 = 0;
/// The registers that are bytes of the page: line status, modem status, scratch.
pub const PAGED: [u8; 3] = [5, 6, 7];

const INTERRUPT_ENABLE: u8 = 1;
const LINE_CONTROL: u8 = 3;
const MODEM_CONTROL: u8 = 4;
/// In the line control register: the interrupt enable register is something else for now.
const DIVISOR_LATCH: u8 = 0x80;
/// In the interrupt enable register: there is room for a byte to be sent.
const TRANSMITTER_EMPTY: u8 = 0x02;
/// In the modem control register: what is sent is received.
const LOOPBACK: u8 = 0x10;

/// A 16550A whose line is an [`Interrupt`].
pub struct SerialPort<I: Interrupt> {
    uart: Serial<Edge, NoEvents, Vec<u8>>,
    interrupt: I,
    page: RegisterPage,
}

impl<I: Interrupt> SerialPort<I> {
    /// A port in its reset state, the last three of its registers at the beginning of `page`.
    pub fn new(interrupt: I, page: RegisterPage) -> Self {
        let mut port = Self { uart: Serial::new(Edge::default(), Vec::new()), interrupt, page };
        port.settle();
        port
    }

    /// The guest reads the register at `offset` (0-7); others read as 0.
    pub fn read(&mut self, offset: u8) -> u8 {
        let value = self.uart.read(offset);
        self.settle();
        value
    }

    /// The guest writes the register at `offset` (0-7); others are ignored.
    pub fn write(&mut self, offset: u8, value: u8) {
        // The output is a buffer and the line cannot fail, so the model has no error left to report.
        let _: Result<(), _> = self.uart.write(offset, value);
        self.settle();
    }

    /// Offers bytes to the guest and returns how many the FIFO took: 0 where it is full or in loopback.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = self.uart.enqueue_raw_bytes(bytes).unwrap_or(0);
        self.settle();
        taken
    }

    /// Whether bytes to be sent may come here late, as long as they come before any other access: the guest neither
    /// waits for an interrupt that follows them nor is to receive them.
    pub fn may_lag(&mut self) -> bool {
        self.uart.read(LINE_CONTROL) & DIVISOR_LATCH == 0
            && self.uart.read(INTERRUPT_ENABLE) & TRANSMITTER_EMPTY == 0
            && self.uart.read(MODEM_CONTROL) & LOOPBACK == 0
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

    /// Shows the guest what an access has changed, and then raises the line: a driver may look at once.
    fn settle(&mut self) {
        let [line, modem, scratch] = PAGED.map(|offset| self.uart.read(offset));
        self.page.store(0, u32::from_le_bytes([line, modem, scratch, 0]));
        if self.uart.interrupt_evt().0.take() {
            // A lost edge shows to the guest as a device that is slow; there is nobody else to tell, and the
            // model would pass a failure on by dropping bytes it has already taken.
            let _: std::io::Result<()> = self.interrupt.signal();
        }
    }
}

/// The model's view of the line: it is to rise.
#[derive(Default)]
struct Edge(Cell<bool>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.set(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
