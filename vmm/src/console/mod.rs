//! The serial console: where the guest's bytes go and come from.
//!
//! A vCPU never touches the embedder's reader or writer. It puts bytes into the serial port's buffer and
//! goes on; the thread `fc-console` takes them from there. A vCPU that fills the buffer faster than it is
//! emptied waits, and can be paused and stopped while it does.

mod port;
mod wait;
mod worker;

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::BuildError;
pub(crate) use port::{Flow, Port};
pub(crate) use worker::{THREAD_NAME, Worker};

/// Where the guest's serial port (16550A) leads. To Linux it is `ttyS0`; with `console=ttyS4`, and the kernel that
/// `cargo xtask kernel` builds, what is printed causes next to no exits.
pub struct Console {
    output: Option<Box<dyn Write + Send>>,
    input: Option<OwnedFd>,
    jailed: bool,
}

impl Console {
    /// The guest's output goes nowhere. Input can still be given.
    #[must_use]
    pub fn discard() -> Self {
        Self { output: None, input: None, jailed: true }
    }

    /// The guest's output goes to `output`, flushed whenever the guest has sent nothing more for the moment: at most 10 ms
    /// after it has sent it, and all of it before the run is over.
    ///
    /// It is written to by a thread of the VM. An error of it is logged once, and what follows is discarded.
    /// [`Running::wait`](crate::Running::wait) and dropping the VM deliver all output first, so a writer that
    /// blocks for ever holds them up for ever; the guest's vCPUs can be paused and stopped all the same.
    pub fn to(output: impl Write + Send + 'static) -> Self {
        Self { output: Some(Box::new(output)), input: None, jailed: true }
    }

    /// Lets the writer call whatever it likes.
    ///
    /// Unless this is said, the thread that writes is jailed as all others are: the writer can write to what it has
    /// open, wait, lock and allocate, which is what files, pipes, terminals and memory take. One that opens files,
    /// connects, or starts threads as it writes is to be outside of the jail: it would end the process.
    #[must_use]
    pub fn unjailed(mut self) -> Self {
        self.jailed = false;
        self
    }

    /// The guest's input comes from this descriptor (a terminal, pipe, socket or file), until its end.
    ///
    /// The descriptor's settings are not touched: a terminal's raw mode is its owner's to set. For any other
    /// [`Read`](io::Read), copy it into [`Running::console_input`](crate::Running::console_input).
    #[must_use]
    pub fn input(mut self, input: impl Into<OwnedFd>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// What there is for a thread to do; `None` where there is nothing.
    pub(crate) fn into_worker(
        self,
        port: &Arc<Port>,
        collect: impl Fn(bool) -> bool + Send + 'static,
    ) -> Result<Option<ConsoleThread>, BuildError> {
        let Self { output, input, jailed } = self;
        if output.is_none() && input.is_none() {
            return Ok(None);
        }
        let output = output.unwrap_or_else(|| Box::new(io::sink()));
        let worker = Worker::new(Arc::clone(port), output, input, Box::new(collect))
            .map_err(|source| BuildError::Host { what: "the console's input", source })?;
        Ok(Some(ConsoleThread { worker, jailed }))
    }

    pub(crate) fn has_output(&self) -> bool {
        self.output.is_some()
    }
}

/// The console's thread, to be started.
pub(crate) struct ConsoleThread {
    pub(crate) worker: Worker,
    /// It is to have a filter.
    pub(crate) jailed: bool,
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("output", &self.output.is_some()).field("input", &self.input).finish()
    }
}

/// The guest's serial input, as a writer. Clones lead to the same port.
///
/// A write takes what the port's 64-byte FIFO has room for, and waits while it has none; once the guest's
/// run has ended it fails with [`io::ErrorKind::BrokenPipe`].
#[derive(Clone)]
pub struct ConsoleInput(pub(crate) Arc<Port>);

impl Write for ConsoleInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for ConsoleInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsoleInput")
    }
}
