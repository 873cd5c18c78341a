//! The host's end of streams to and from a guest, every byte checked.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use firecrest_pattern::exchange::{Order, When, call, serve};

/// Whatever gives streams.
pub trait Accept: Send + 'static {
    fn next(&self) -> UnixStream;
}

impl Accept for UnixListener {
    fn next(&self) -> UnixStream {
        self.accept().unwrap().0
    }
}

impl Accept for TcpListener {
    fn next(&self) -> UnixStream {
        as_unix(self.accept().unwrap().0)
    }
}

/// A connected stream socket is one, whatever its family: reading, writing and closing are the same calls.
pub fn as_unix(stream: TcpStream) -> UnixStream {
    UnixStream::from(OwnedFd::from(stream))
}

/// What streams came to, once it is asked for.
pub struct Streams(JoinHandle<Vec<io::Result<()>>>);

impl Streams {
    fn new(streams: impl Iterator<Item = io::Result<()>> + Send + 'static) -> Self {
        Self(thread::spawn(move || streams.collect()))
    }

    /// Asserts that so many streams went well.
    pub fn assert(self, count: usize) {
        let ends = self.0.join().unwrap();
        for (number, end) in ends.iter().enumerate() {
            end.as_ref().unwrap_or_else(|error| panic!("stream {number}: {error}"));
        }
        assert_eq!(ends.len(), count);
    }
}

/// Takes so many streams of the guest's, all at the same time.
pub fn serve_all(from: impl Accept, count: usize) -> Streams {
    let threads = (0..count).map(move |_| from.next()).map(|stream| thread::spawn(move || serve(stream)));
    // Collected first: the last is accepted while the others are at work.
    let ends = std::iter::once_with(move || threads.collect::<Vec<_>>());
    Streams::new(ends.flatten().map(|thread| thread.join().unwrap().map(drop)))
}

/// Serves whoever comes, until the test is over. Failures are for the caller in the guest to report.
pub fn serve_for_ever(from: impl Accept) {
    thread::spawn(move || {
        loop {
            let stream = from.next();
            thread::spawn(move || serve(stream));
        }
    });
}

/// Opens so many streams to the guest, one after another, and then exchanges `bytes` in both directions on each of
/// them at the same time.
pub fn call_all(connect: impl Fn() -> UnixStream, count: usize, bytes: u64, when: When) -> Streams {
    let streams: Vec<_> = (0..count).map(|_| connect()).collect();
    let orders = (0_u64..).map(move |seed| Order { seed, send: bytes, reply: bytes, when });
    let threads: Vec<_> = streams
        .into_iter()
        .zip(orders)
        .map(|(stream, order)| thread::spawn(move || call(stream, order)))
        .collect();
    Streams::new(threads.into_iter().map(|thread| thread.join().unwrap()))
}
