//! The guest's end of the device tests: writes and checks patterns, on disks and over streams.

use std::env;
use std::fmt::Display;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use firecrest_pattern::exchange::{Order, When, call, serve};
use firecrest_pattern::{Pattern, vsock};

const USAGE: &str = "\
pattern write FILE OFFSET BYTES SEED       write that part of the pattern at that place, and flush
pattern check FILE OFFSET BYTES SEED       check it
pattern call ADDRESS STREAMS SEND REPLY [after-eof]
                                           open so many streams at once, exchange so many bytes on each
pattern serve ADDRESS STREAMS              take so many streams, and do what they order
pattern hold ADDRESS                       connect, read until the stream ends, and print how: `eof N`, `ERROR N`

ADDRESS is vsock:CID:PORT or tcp:IP:PORT";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pattern {}: {error}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> io::Result<()> {
    match *words {
        ["write", file, offset, bytes, seed] => {
            Pattern::new(number(seed)?).write(Path::new(file), number(offset)?, number(bytes)?)
        }
        ["check", file, offset, bytes, seed] => {
            Pattern::new(number(seed)?).check(Path::new(file), number(offset)?, number(bytes)?)
        }
        ["call", address, streams, send, reply] => {
            calls(&address.parse()?, number(streams)?, number(send)?, number(reply)?, When::AtOnce)
        }
        ["call", address, streams, send, reply, "after-eof"] => {
            calls(&address.parse()?, number(streams)?, number(send)?, number(reply)?, When::AfterEof)
        }
        ["serve", address, streams] => serves(&address.parse()?, number(streams)?),
        ["hold", address] => hold(address.parse::<Address>()?.connect()?),
        _ => Err(io::Error::other(USAGE)),
    }
}

fn calls(address: &Address, streams: u64, send: u64, reply: u64, when: When) -> io::Result<()> {
    // All are open before the first byte goes anywhere.
    let open: Vec<_> = (0..streams).map(|_| address.connect()).collect::<io::Result<_>>()?;
    let orders = (0..streams).map(|seed| Order { seed, send, reply, when });
    all(open.into_iter().zip(orders).map(|(stream, order)| move || call(stream, order)))
}

fn serves(address: &Address, streams: u64) -> io::Result<()> {
    let accept = address.listen()?;
    // Whoever is to connect waits for this line.
    println!("FC serving={address}");
    all((0..streams).map(|_| accept()).map(|stream| move || serve(stream?).map(drop)))
}

/// Does all of it at the same time; the first failure is that of the whole.
fn all(jobs: impl Iterator<Item = impl FnOnce() -> io::Result<()> + Send + 'static>) -> io::Result<()> {
    let threads: Vec<_> = jobs.map(thread::spawn).collect();
    let ends = threads.into_iter().enumerate().map(|(number, thread)| {
        let end = thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")));
        end.map_err(|error| io::Error::other(format!("stream {number}: {error}")))
    });
    // Every one is waited for, whatever became of those before it.
    ends.collect::<Vec<_>>().into_iter().collect()
}

fn hold(mut stream: UnixStream) -> io::Result<()> {
    println!("FC holding");
    let (mut buffer, mut total) = ([0; 4096], 0_usize);
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "eof".to_owned(),
            Ok(length) => total = total.saturating_add(length),
            Err(error) => break format!("{:?}", error.kind()),
        }
    };
    println!("FC held={end} {total}");
    Ok(())
}

enum Address {
    Vsock(u32, u32),
    Tcp(String),
}

impl Address {
    /// As a Unix stream, whatever it is: reading, writing and closing are the same system calls.
    fn connect(&self) -> io::Result<UnixStream> {
        match self {
            Self::Vsock(cid, port) => vsock::connect(*cid, *port),
            Self::Tcp(address) => Ok(UnixStream::from(OwnedFd::from(TcpStream::connect(address)?))),
        }
    }

    fn listen(&self) -> io::Result<Box<dyn Fn() -> io::Result<UnixStream>>> {
        Ok(match self {
            Self::Vsock(_, port) => {
                let listener = vsock::Listener::bind(*port, 1024)?;
                Box::new(move || listener.accept())
            }
            Self::Tcp(address) => {
                let listener = TcpListener::bind(address)?;
                Box::new(move || Ok(UnixStream::from(OwnedFd::from(listener.accept()?.0))))
            }
        })
    }
}

impl Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vsock(cid, port) => write!(f, "vsock:{cid}:{port}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for Address {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        match text.split_once(':') {
            Some(("tcp", address)) => Ok(Self::Tcp(address.to_owned())),
            Some(("vsock", address)) => match address.split_once(':') {
                Some((cid, port)) => Ok(Self::Vsock(number(cid)?, number(port)?)),
                None => Err(io::Error::other(USAGE)),
            },
            _ => Err(io::Error::other(USAGE)),
        }
    }
}

fn number<T: FromStr<Err: Display>>(word: &str) -> io::Result<T> {
    word.parse().map_err(|error| io::Error::other(format!("{word}: {error}")))
}
