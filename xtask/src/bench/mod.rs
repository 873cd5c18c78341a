//! `cargo xtask bench`: benchmarks that measure the program from outside, beside its peers.
//!
//! They report; they do not judge. What a clock says on one machine is no test.

mod io;
mod start;
mod statistics;

use crate::args;
use crate::error::{Error, Result};

const HELP: &str = "\
Measures the program from outside, beside its peers.

Usage: cargo xtask bench [start | io] [OPTION...]

  start   exec to the end of a guest whose first instructions end it: the ioctl floor (benches/start/floor.c),
          this program, QEMU's microvm machine where QEMU is installed, and peers given by path
  io      block, net and vsock at the speed of the machine, driven by a guest that polls (benches/guest): this program
          and Firecracker's binary where it is given; kicks and exits to user space of each operation. Frames need root.
          On a machine with other work, `echo -10 > /proc/self/autogroup` in the shell before keeps that out

  --runs N           counted runs of each, in turn [start: 60, io: 5]
  --peer NAME=PATH   a peer's binary: NAME is firecracker, cloud-hypervisor (start only) or firecrest (io only: another
                     build of this program); may be repeated
  --ms N             io: milliseconds of each run [300]
  --only TEXT        io: only workloads whose name contains this
";

/// A peer's binary.
pub struct Peer {
    pub name: String,
    pub path: String,
}

enum Group {
    Start,
    Io,
}

/// Runs the command.
pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    let (mut group, mut runs, mut peers) = (Group::Start, None, Vec::new());
    let (mut milliseconds, mut only) = (300, None);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(name) if name == "start" => group = Group::Start,
            lexopt::Arg::Value(name) if name == "io" => group = Group::Io,
            lexopt::Arg::Value(group) => {
                return Err(Error::usage(format!("no benchmark `{}`", group.to_string_lossy())));
            }
            lexopt::Arg::Long("runs") => runs = Some(args::number(&mut parser, "--runs")?),
            lexopt::Arg::Long("ms") => milliseconds = args::number(&mut parser, "--ms")?,
            lexopt::Arg::Long("only") => only = Some(parser.value()?.to_string_lossy().into_owned()),
            lexopt::Arg::Long("peer") => peers.push(peer(&parser.value()?.to_string_lossy())?),
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match group {
        Group::Start => start::run(runs.unwrap_or(60), &peers)?,
        Group::Io => io::run(&io::Options { rounds: runs.unwrap_or(5), milliseconds, only }, &peers)?,
    }
    Ok(0)
}

fn peer(text: &str) -> Result<Peer> {
    match text.split_once('=') {
        Some((name @ ("firecracker" | "cloud-hypervisor" | "firecrest"), path)) => {
            Ok(Peer { name: name.to_owned(), path: path.to_owned() })
        }
        _ => Err(Error::usage(format!("--peer {text}: give NAME=PATH, with a NAME of --help"))),
    }
}
