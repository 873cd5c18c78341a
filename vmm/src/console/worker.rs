//! The thread `fc-console`: carries bytes between the serial port and the embedder's reader and writer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use firecrest_devices::host_io::Here;
use firecrest_seccomp::Work;

use super::port::{Port, Taken};
use super::wait::{Ready, Waits};
use crate::coalesced::PATIENCE;

/// The name of the console's thread.
pub(crate) const THREAD_NAME: &str = "fc-console";

/// Input read at a time, in bytes.
const INPUT_CHUNK: usize = 256;

/// What the console's thread works on.
pub(crate) struct Worker {
    port: Arc<Port>,
    waits: Waits,
    output: Box<dyn Write + Send>,
    output_failed: bool,
    input: Option<File>,
    /// There is nothing more to be read. The file stays open: the thread's jail cannot close it.
    input_ended: bool,
    /// Input that the port has not taken yet.
    pending: Vec<u8>,
    /// Has the port be given what KVM has kept for it.
    collect: Box<Collect>,
}

/// [`Platform::collect`](crate::platform::Platform::collect).
pub(crate) type Collect = dyn Fn(bool) -> bool + Send;

impl Worker {
    pub(super) fn new(
        port: Arc<Port>,
        output: Box<dyn Write + Send>,
        input: Option<OwnedFd>,
        collect: Box<Collect>,
    ) -> io::Result<Self> {
        let waits = Waits::new(port.wake_fd().as_raw_fd(), input.as_ref().map(AsRawFd::as_raw_fd))?;
        let input = input.map(File::from);
        let input_ended = input.is_none();
        Ok(Self {
            port,
            waits,
            output,
            output_failed: false,
            input,
            input_ended,
            pending: Vec::new(),
            collect,
        })
    }
}

impl Work for Worker {
    /// Works until the port is closed and all of its output is written.
    fn run(&mut self) {
        let mut buffer = Vec::new();
        let mut rested = false;
        loop {
            let watch = (self.collect)(std::mem::take(&mut rested));
            let Taken { output, closed } = self.port.take(buffer);
            self.write(&output);
            let idle = output.is_empty();
            buffer = output;
            if idle && closed {
                return;
            }
            if idle {
                rested = self.wait(watch.then_some(PATIENCE));
            }
        }
    }
}

impl Worker {
    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() || self.output_failed {
            return;
        }
        if let Err(error) = self.output.write_all(bytes).and_then(|()| self.output.flush()) {
            log::warn!("console output failed, and is discarded from now on: {error}");
            self.output_failed = true;
        }
    }

    /// Waits for output to appear or input to arrive, and passes input on. Whether it was in vain.
    fn wait(&mut self, at_most: Option<Duration>) -> bool {
        let taken = self.port.offer(&self.pending);
        self.pending.drain(..taken.min(self.pending.len()));
        // While the guest has not taken what has been read, no more is read: the sender feels it.
        let Ready { port, input, nothing } =
            self.waits.wait(self.pending.is_empty() && !self.input_ended, at_most);
        if port {
            // Non-blocking: an error says that there was nothing to take.
            let _: io::Result<usize> = Here(self.port.wake_fd()).read(&mut [0; 8]);
        }
        if input {
            self.read();
        }
        nothing
    }

    fn read(&mut self) {
        let Some(file) = &self.input else { return };
        let mut chunk = [0; INPUT_CHUNK];
        match Here(file).read(&mut chunk) {
            Ok(count) if count != 0 => self.pending.extend(chunk.iter().take(count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            // The end of the input, or a terminal that has gone: the same to the guest.
            Ok(_) | Err(_) => self.input_ended = true,
        }
    }
}
