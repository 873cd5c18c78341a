//! What the tests with tiny guests share: the guests, a maker of kernels, a recorder for the serial port, and a view of
//! what the process holds.

#![allow(dead_code, reason = "every test binary uses a part of it")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests")]

pub mod budget;
pub mod disk;
pub mod elf;
pub mod guest;
pub mod guests;
pub mod lock_attempts;
pub mod locked;
pub mod net;
pub mod process;
pub mod program;
pub mod pty;
pub mod streams;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firecrest_vmm::{Builder, Console, Exit, Kernel, Running, Vm, WaitError};

/// Longer than anything here takes, even on an emulated CPU.
pub const LONG: Duration = Duration::from_secs(180);

/// What a guest wrote to its serial port.
#[derive(Clone, Default)]
pub struct Recorder(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Recorder {
    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().clone()
    }

    /// Everything so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock()).into_owned()
    }

    /// How much so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until there are at least `length` bytes.
    pub fn wait_for(&self, length: usize) {
        let (bytes, _) = self
            .0
            .1
            .wait_timeout_while(self.lock(), LONG, |bytes| bytes.len() < length)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(bytes.len() >= length, "the guest wrote {} bytes, not {length}", bytes.len());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Recorder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A machine of one CPU and 32 MiB that boots `code` from memory.
pub fn tiny(code: &[u8]) -> Builder {
    Vm::builder().memory_mib(32).vcpus(1).kernel(Kernel::from_bytes(&elf::kernel(code)).unwrap())
}

/// A machine of one CPU and 32 MiB that boots `code` from memory, and what it writes.
pub fn tiny_recorded(code: &[u8]) -> (Builder, Recorder) {
    let recorder = Recorder::default();
    (tiny(code).console(Console::to(recorder.clone())), recorder)
}

/// Builds, starts, and waits for the end.
pub fn run(builder: Builder) -> Exit {
    wait(&builder.build().unwrap().start().unwrap()).unwrap()
}

/// Waits for the end; a guest that does not end is stopped and fails the test, instead of hanging it.
pub fn wait(running: &Running) -> Result<Exit, WaitError> {
    let stop = running.stop_handle();
    let (ended, has_ended) = mpsc::channel::<()>();
    let alarm = std::thread::spawn(move || {
        let late = has_ended.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout);
        if late {
            stop.stop();
        }
        late
    });
    let exit = running.wait();
    drop(ended);
    assert!(!alarm.join().unwrap(), "the guest did not end by itself within {LONG:?}");
    exit
}

/// For tests that count what the process holds: one at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "waited {LONG:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A test's own file, gone when this is dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A file with this content. Tests of one process need different names.
    pub fn file(name: &str, content: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("firecrest-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl AsRef<Path> for Scratch {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
