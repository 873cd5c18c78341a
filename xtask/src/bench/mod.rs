//! `cargo xtask bench`: benchmarks that measure the program from outside, beside its peers.
//!
//! They report; they do not judge. What a clock says on one machine is no test.

mod start;
mod statistics;

use crate::args;
use crate::error::{Error, Result};

const HELP: &str = "\
Measures the program from outside, beside its peers.

Usage: cargo xtask bench [start] [OPTION...]

  start   exec to the end of a guest whose first instructions end it: the ioctl floor (benches/start/floor.c),
          this program, QEMU's microvm machine where QEMU is installed, and peers given by path

  --runs N           counted runs of each, in turn [60]
  --peer NAME=PATH   a peer's binary: NAME is firecracker or cloud-hypervisor; may be repeated
";

/// A peer's binary.
pub struct Peer {
    pub name: String,
    pub path: String,
}

/// Runs the command.
pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    let (mut runs, mut peers) = (60, Vec::new());
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Value(group) if group == "start" => {}
            lexopt::Arg::Value(group) => {
                return Err(Error::usage(format!("no benchmark `{}`", group.to_string_lossy())));
            }
            lexopt::Arg::Long("runs") => runs = args::number(&mut parser, "--runs")?,
            lexopt::Arg::Long("peer") => peers.push(peer(&parser.value()?.to_string_lossy())?),
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    start::run(runs, &peers)?;
    Ok(0)
}

fn peer(text: &str) -> Result<Peer> {
    match text.split_once('=') {
        Some((name @ ("firecracker" | "cloud-hypervisor"), path)) => {
            Ok(Peer { name: name.to_owned(), path: path.to_owned() })
        }
        _ => Err(Error::usage(format!("--peer {text}: give firecracker=PATH or cloud-hypervisor=PATH"))),
    }
}
