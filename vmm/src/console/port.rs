//! The serial port between the vCPUs on one side and the console's thread and the embedder on the other.
//!
//! One lock holds the device and all flags. A vCPU holds it for one register access; it then waits for
//! the buffer to be emptied where it is full, which pausing and ending the run interrupt ([`Port::set_flow`]).

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use firecrest_devices::serial::SerialPort;
use firecrest_devices::virtio::RegisterPage;
use vmm_sys_util::eventfd::EventFd;

use crate::error::BuildError;
use crate::interrupt::{IrqLine, event};

/// Above this many bytes of output, a vCPU waits for them to be taken.
const OUTPUT_LIMIT: usize = 64 << 10;

/// With so many, the console's thread is not to be waited for.
const OUTPUT_ENOUGH: usize = 4 << 10;

/// Whether vCPUs may wait here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// A vCPU that has filled the buffer waits.
    Normal,
    /// It does not: it is wanted in its checkpoint.
    Released,
    /// Nor will it ever again, and there is no more input.
    Ended,
}

pub(crate) struct Port {
    state: Mutex<State>,
    changed: Condvar,
    /// Wakes the console's thread.
    wake: EventFd,
    discard_output: bool,
}

struct State {
    uart: SerialPort<IrqLine>,
    flow: Flow,
    /// Somebody has input that the FIFO did not take.
    stalled: bool,
    /// No vCPU is left: what output there is, is all there will be.
    closed: bool,
}

/// What the console's thread finds.
pub(crate) struct Taken {
    pub(crate) output: Vec<u8>,
    pub(crate) closed: bool,
}

impl Port {
    /// A port that shows its status in `page`.
    pub(crate) fn new(line: IrqLine, page: RegisterPage, discard_output: bool) -> Result<Self, BuildError> {
        let uart = SerialPort::new(line, page);
        let state = State { uart, flow: Flow::Normal, stalled: false, closed: false };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), wake: event()?, discard_output })
    }

    /// A vCPU reads a register.
    pub(crate) fn read(&self, offset: u8) -> u8 {
        let mut state = self.lock();
        let value = state.uart.read(offset);
        self.unstall(&mut state);
        value
    }

    /// A register is written; whether what follows for it may come late ([`SerialPort::may_lag`]). The console's thread is
    /// woken where that puts out the first byte, and `watched` does not say that it comes to look by itself.
    pub(crate) fn write(&self, offset: u8, value: u8, watched: bool) -> bool {
        let mut state = self.lock();
        let before = state.uart.output_len();
        state.uart.write(offset, value);
        self.unstall(&mut state);
        let has_grown = state.uart.output_len() > before;
        if self.discard_output {
            state.uart.take_output(Vec::new());
        } else if has_grown && (before == OUTPUT_ENOUGH || before == 0 && !watched) {
            self.wake();
        }
        state.uart.may_lag()
    }

    /// A vCPU waits where the buffer is full.
    pub(crate) fn wait_for_room(&self) {
        let mut state = self.lock();
        while state.uart.output_len() >= OUTPUT_LIMIT && state.flow == Flow::Normal {
            state = self.wait_for_change(state);
        }
    }

    /// Says whether vCPUs may wait here. Once ended, it stays so.
    pub(crate) fn set_flow(&self, flow: Flow) {
        let mut state = self.lock();
        if state.flow != Flow::Ended {
            state.flow = flow;
            self.changed.notify_all();
        }
    }

    /// No vCPU is left.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// The console's thread takes all output, and leaves an empty buffer for more.
    pub(crate) fn take(&self, empty: Vec<u8>) -> Taken {
        let mut state = self.lock();
        let output = state.uart.take_output(empty);
        if output.len() >= OUTPUT_LIMIT {
            self.changed.notify_all();
        }
        Taken { output, closed: state.closed }
    }

    /// Offers input, and returns how much was taken. What was not can be offered again after the next wake.
    pub(crate) fn offer(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        let taken = state.uart.receive(bytes);
        state.stalled |= taken < bytes.len();
        taken
    }

    /// Offers input until some of it is taken.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.lock();
        loop {
            if state.flow == Flow::Ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let taken = state.uart.receive(bytes);
            if taken != 0 || bytes.is_empty() {
                return Ok(taken);
            }
            state.stalled = true;
            state = self.wait_for_change(state);
        }
    }

    /// The descriptor that becomes readable when the console's thread has something to do.
    pub(crate) fn wake_fd(&self) -> &EventFd {
        &self.wake
    }

    /// The guest has touched the port: the FIFO may have room, or loopback be off.
    fn unstall(&self, state: &mut State) {
        if std::mem::take(&mut state.stalled) {
            self.changed.notify_all();
            self.wake();
        }
    }

    /// Has the console's thread look whether there is something to do.
    pub(crate) fn wake(&self) {
        // It fails only where the counter is at its maximum, and then the thread is awake.
        let _: io::Result<()> = self.wake.write(1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock has been reported and ends the run; the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_change<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}
