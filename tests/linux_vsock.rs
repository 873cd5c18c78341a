//! Linux guests and their sockets to the host: the kernel's own driver, Unix sockets on this side, and data that both
//! ends check.
//!
//! What a guest does is in `tests/guest/vsock*.sh`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod support;

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use firecrest_pattern::exchange::When;
use firecrest_vmm::Vsock;
use support::disk::MIB;
use support::guest;
use support::streams::{call_all, serve_all, serve_for_ever};

/// Streams at once, in each direction.
const STREAMS: usize = 64;
/// What goes over each of them in both directions.
const BYTES: u64 = 256 << 10;
/// What goes over one stream in one direction, and then over another in the other, in MiB, unless the variable of that
/// name says otherwise: 1024 is a matter of seconds on hardware, and of a minute and a half in a lab that has its machine to itself.
const LARGE: (&str, u64) = ("FIRECREST_LARGE_MIB", 64);

/// A path of the monitor's socket, and of the ports beside it.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("firecrest-{}-{name}.vsock", std::process::id())))
    }

    fn device(&self) -> Vsock {
        Vsock::unix(3, self.0.clone())
    }

    /// Where the monitor goes when the guest connects to a port.
    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.port(port)).unwrap()
    }

    fn port(&self, port: u32) -> PathBuf {
        let mut path = self.0.clone().into_os_string();
        path.push(format!("_{port}"));
        path.into()
    }

    /// Connects to a port of the guest's.
    fn connect(&self, port: u32) -> UnixStream {
        let (stream, answer) = self.ask(port);
        let assigned = answer.strip_prefix("OK ").and_then(|rest| rest.strip_suffix('\n'));
        assert!(assigned.is_some_and(|port| port.parse::<u32>().is_ok()), "{answer:?}");
        stream
    }

    /// Asks for a port of the guest's, and returns the answer: a line, or nothing where the stream was closed.
    fn ask(&self, port: u32) -> (UnixStream, String) {
        let mut stream = UnixStream::connect(&self.0).unwrap();
        stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
        let (mut answer, mut byte) = (String::new(), [0]);
        // Byte by byte: what follows the line belongs to the stream.
        while !answer.ends_with('\n') && matches!(stream.read(&mut byte), Ok(1)) {
            answer.push(char::from(byte[0]));
        }
        (stream, answer)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        for path in [self.0.clone(), self.port(7000), self.port(7002), self.port(7003)] {
            let _ = fs::remove_file(path);
        }
    }
}

#[test]
fn streams_in_both_directions() {
    let socket = Socket::new("streams");
    serve_for_ever(socket.listen(7000));
    let large = env::var(LARGE.0).map_or(LARGE.1, |mib| mib.parse().unwrap()) * MIB;
    let words = format!("fc.streams={STREAMS} fc.bytes={BYTES} fc.large={large}");
    let guest = guest::start("vsock", &words, |builder| builder.vsock(socket.device()));
    guest.serving();
    let called = call_all(|| socket.connect(7001), STREAMS, BYTES, When::AtOnce);
    guest.serving();
    let half_closed = call_all(|| socket.connect(7001), 4, MIB, When::AfterEof);
    guest.finish();
    called.assert(STREAMS);
    half_closed.assert(4);
    for step in ["called", "served", "half_closed", "large"] {
        assert_eq!(guest.said(step), "ok");
    }
    let streamed = 4 * STREAMS as u64 * BYTES + 16 * MIB + 2 * large;
    let counted: u64 = guest.running.stats().devices[1].queues.iter().map(|queue| queue.bytes).sum();
    assert!(counted >= streamed, "{counted} bytes counted of {streamed}");
}

#[test]
fn streams_that_end_badly() {
    let socket = Socket::new("ends");
    // Two hosts' programs that die in the middle: one has written, the other has read, some of what was to come.
    let (writer, reader) = (socket.listen(7002), socket.listen(7003));
    let dying = thread::spawn(move || {
        writer.accept().unwrap().0.write_all(&[7; 100_000]).unwrap();
        reader.accept().unwrap().0.read_exact(&mut [0; 100_000]).unwrap();
    });
    let taken = serve_all(socket.listen(7000), 4);
    let guest = guest::start("vsock_ends", "", |builder| builder.vsock(socket.device()));
    guest.at("nobody", || {
        let (_, answer) = socket.ask(9998);
        assert_eq!(answer, "", "a port nobody has in the guest");
    });
    guest.serving();
    let called = call_all(|| socket.connect(7001), 4, MIB, When::AtOnce);
    guest.finish();
    dying.join().unwrap();
    taken.assert(4);
    called.assert(4);

    assert!(guest.said("nobody").contains("reset"), "{}", guest.said("nobody"));
    // What was written before the death arrives, then the end.
    assert_eq!(guest.said("held"), "eof 100000");
    let dead = guest.said("dead");
    assert!(dead.contains("reset") || dead.contains("Broken pipe"), "{dead}");
    assert_eq!(guest.said("rebound"), "ok");
}
