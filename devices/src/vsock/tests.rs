//! A vsock device between a driver and real Unix sockets.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_lossless,
    reason = "tests"
)]

mod broker;
mod conformance;
mod guest;
mod hostile;
mod many;
mod spec;
mod streams;

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vmm_sys_util::tempdir::TempDir;

use super::Vsock;
use super::spec::Timeouts;

const CID: u32 = 3;

/// A folder for sockets, and the path of the device's.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: TempDir::new_in(&std::env::temp_dir()).unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.as_path().join("v.sock")
    }

    fn vsock(&self) -> Vsock {
        Vsock::unix(CID, self.path())
    }

    /// Listens where the guest's connections to `port` arrive.
    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.folder.as_path().join(format!("v.sock_{port}"))).unwrap()
    }

    /// Connects as a program on the host, and sends a line.
    fn connect(&self, line: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(line).unwrap();
        stream
    }
}

const LONG: Duration = Duration::from_secs(20);

/// Reads the line that the device answers with, byte by byte.
fn answer(stream: &mut UnixStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') && stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Bytes that say where they belong.
fn pattern(seed: u64) -> impl FnMut() -> u8 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    }
}

fn short_timeouts() -> Timeouts {
    Timeouts {
        close: Duration::from_millis(80),
        line: Duration::from_millis(80),
        dial: Duration::from_millis(80),
    }
}

fn is_end(result: io::Result<usize>) -> bool {
    match result {
        Ok(count) => count == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Waits for `condition`, which nothing tells of.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "waited {LONG:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
