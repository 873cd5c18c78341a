//! One stream, both directions, every byte checked on both sides.
//!
//! The caller says what it will send and what it wants back ([`Order`]), sends it, and closes its direction. The server
//! replies with another pattern, then with the number of bytes it has found right, and closes. So each end of the
//! stream sees the other's end of file, and the caller knows what became of its bytes.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread;

use crate::Pattern;

/// What goes over a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names the two patterns.
    pub seed: u64,
    /// How many bytes the caller sends.
    pub send: u64,
    /// How many bytes it gets back.
    pub reply: u64,
    /// When the reply begins.
    pub when: When,
}

/// When the server replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once: both directions are busy at the same time.
    AtOnce,
    /// Once it has seen the caller's end of file: the whole reply goes over a stream that is half closed.
    AfterEof,
}

impl Order {
    fn to_bytes(self) -> [u8; 32] {
        let when = match self.when {
            When::AtOnce => 0,
            When::AfterEof => 1_u64,
        };
        let mut bytes = [0; 32];
        let words = [self.seed, self.send, self.reply, when];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let mut next = || words.next().unwrap_or(0);
        let (seed, send, reply) = (next(), next(), next());
        let when = if next() == 0 { When::AtOnce } else { When::AfterEof };
        Self { seed, send, reply, when }
    }

    fn sent(self) -> Pattern {
        Pattern::new(self.seed)
    }

    fn replied(self) -> Pattern {
        Pattern::new(!self.seed)
    }
}

/// The caller's part. Any stream socket will do: nothing of `UnixStream` is used that others do not have.
///
/// # Errors
/// Whatever the stream says, the first byte that is wrong, and what the server has not seen.
pub fn call(mut stream: UnixStream, order: Order) -> io::Result<()> {
    let mut sending = stream.try_clone()?;
    let sender = thread::spawn(move || {
        sending.write_all(&order.to_bytes())?;
        order.sent().send(&mut sending, order.send)?;
        sending.shutdown(Shutdown::Write)
    });
    let received = receive_reply(&mut stream, order);
    // What went wrong on the way there explains best why nothing came back.
    sender.join().map_err(|_| io::Error::other("the sending thread panicked"))?.map_err(at("sending"))?;
    received.map_err(at("the reply"))
}

fn receive_reply(stream: &mut UnixStream, order: Order) -> io::Result<()> {
    order.replied().receive(stream, order.reply)?;
    let mut seen = [0; 8];
    stream.read_exact(&mut seen)?;
    let seen = u64::from_le_bytes(seen);
    if seen != order.send {
        return Err(io::Error::other(format!("of {} bytes sent, {seen} arrived", order.send)));
    }
    expect_end(stream)
}

/// The server's part.
///
/// # Errors
/// Whatever the stream says, and the first byte that is wrong.
pub fn serve(mut stream: UnixStream) -> io::Result<Order> {
    let mut bytes = [0; 32];
    stream.read_exact(&mut bytes).map_err(at("the order"))?;
    let order = Order::from_bytes(bytes);
    if order.when == When::AfterEof {
        receive_all(&mut stream, order)?;
        order.replied().send(&mut stream, order.reply).map_err(at("replying"))?;
    } else {
        let mut replying = stream.try_clone()?;
        let replier = thread::spawn(move || order.replied().send(&mut replying, order.reply));
        let received = receive_all(&mut stream, order);
        replier
            .join()
            .map_err(|_| io::Error::other("the replying thread panicked"))?
            .map_err(at("replying"))?;
        received?;
    }
    stream.write_all(&order.send.to_le_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    Ok(order)
}

fn receive_all(stream: &mut UnixStream, order: Order) -> io::Result<()> {
    order.sent().receive(stream, order.send).and_then(|()| expect_end(stream)).map_err(at("receiving"))
}

fn expect_end(stream: &mut UnixStream) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::other("more bytes than were to come")),
    }
}

fn at(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}
