//! `cargo xtask bench`: benchmarks that measure the program from outside, beside its peers.
//!
//! They report; they do not judge. What a clock says on one machine is no test. Every figure ends up as a
//! [`Record`](record::Record), whatever found it: in a table, in a file, in a picture.

mod boot;
mod density;
mod idle;
mod io;
mod live;
mod memory;
mod monitor;
mod record;
mod report;
mod rounds;
mod start;
mod statistics;
mod table;
mod wall;

use std::path::PathBuf;

use self::record::{Document, Results};
use crate::args;
use crate::error::{Error, Result};

const HELP: &str = "\
Measures the program from outside, beside its peers.

Usage: cargo xtask bench [GROUP...] [OPTION...]
       cargo xtask bench --report FILE...

Groups (all of them unless named):
  start    exec to the end of a guest whose first instructions end it: the ioctl floor (benches/start/floor.c), this
           program, its phases, QEMU's microvm machine where QEMU is installed, and peers given by path
  boot     exec to the first guest instruction and to PID 1 in the lab, in instructions of guest, monitor and KVM; exits to
           user space and in all; without a serial port, under either policy of huge pages, and with the whole log on
           one; and by the clock, where the CPU virtualises
  memory   memory of the monitor besides its guest's (RSS, PSS), without devices and with three; the 100th identical microVM
  io       block, net and vsock at the speed of the machine, driven by a guest that polls (benches/guest): this program
           and Firecracker's binary where it is given; kicks and exits to user space of each operation. Frames need
           root. On a machine with other work, `echo -10 > /proc/self/autogroup` in the shell before keeps that out
  density  microVMs built, run to their first exit and torn down in a second, one after the other and 16 at once; how that
           goes on to 1,000 live ones (benches/many)
  idle     wake-ups and system calls of a monitor whose guest does nothing

  --runs N           counted runs of each, in turn [start: 60, boot: 3, memory: 5, io: 5, density: 3]
  --peer NAME=PATH   a peer's binary: NAME is firecracker, cloud-hypervisor or firecrest (another build of this
                     program); may be repeated
  --json FILE        write the figures there, too
  --report FILE...   measures nothing: makes a page with charts of such files, under target/bench-report
  --ms N             io: milliseconds of each run [300]
  --only TEXT        io: only workloads whose name contains this
";

/// A peer's binary.
pub struct Peer {
    pub name: String,
    pub path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Start,
    Boot,
    Memory,
    Io,
    Density,
    Idle,
}

const GROUPS: &[(&str, Group)] = &[
    ("start", Group::Start),
    ("boot", Group::Boot),
    ("memory", Group::Memory),
    ("io", Group::Io),
    ("density", Group::Density),
    ("idle", Group::Idle),
];

/// What the command line says.
#[derive(Default)]
struct Options {
    groups: Vec<Group>,
    runs: Option<usize>,
    peers: Vec<Peer>,
    json: Option<PathBuf>,
    milliseconds: Option<u64>,
    only: Option<String>,
}

/// Runs the command.
pub fn command(mut parser: lexopt::Parser) -> Result<u8> {
    use lexopt::prelude::*;
    let (mut options, mut reported) = (Options::default(), None::<Vec<PathBuf>>);
    while let Some(arg) = parser.next()? {
        match arg {
            Value(file) if reported.is_some() => reported.get_or_insert_default().push(PathBuf::from(file)),
            Value(name) => options.groups.push(group(&name.to_string_lossy())?),
            Long("runs") => options.runs = Some(args::number(&mut parser, "--runs")?),
            Long("ms") => options.milliseconds = Some(args::number(&mut parser, "--ms")?),
            Long("only") => options.only = Some(parser.value()?.to_string_lossy().into_owned()),
            Long("peer") => options.peers.push(peer(&parser.value()?.to_string_lossy())?),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("report") => reported = Some(Vec::new()),
            Long("help") | Short('h') => {
                print!("{HELP}");
                return Ok(0);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    match reported {
        Some(files) => report::make(&files)?,
        None => measure(&options)?,
    }
    Ok(0)
}

/// Runs the groups, and tells what they found: what one has found is told even where a later one fails.
fn measure(options: &Options) -> Result<()> {
    let mut results = Results::default();
    let wanted = |group: Group| options.groups.is_empty() || options.groups.contains(&group);
    let outcome = GROUPS.iter().filter(|(_, group)| wanted(*group)).try_for_each(|(_, group)| {
        let before = results.records.len();
        run(*group, options, &mut results)?;
        print!("{}", table::text(results.records.get(before..).unwrap_or_default()));
        Ok(())
    });
    if let Some(path) = &options.json {
        Document::new(&results).write(path)?;
        println!("\nxtask: bench: {} figures in {}", results.records.len(), path.display());
    }
    outcome
}

fn run(group: Group, options: &Options, results: &mut Results) -> Result<()> {
    let (runs, peers) = (options.runs, options.peers.as_slice());
    match group {
        Group::Start => start::run(runs.unwrap_or(60), peers, results),
        Group::Boot => boot::run(runs.unwrap_or(3), peers, results),
        Group::Memory => memory::run(runs.unwrap_or(5), peers, results),
        Group::Density => density::run(runs.unwrap_or(3), results),
        Group::Idle => idle::run(peers, results),
        Group::Io => {
            let (milliseconds, only) = (options.milliseconds.unwrap_or(300), options.only.clone());
            io::run(&io::Options { rounds: runs.unwrap_or(5), milliseconds, only }, peers, results)
        }
    }
}

fn group(name: &str) -> Result<Group> {
    let known = GROUPS.iter().find(|(known, _)| *known == name);
    known.map(|(_, group)| *group).ok_or_else(|| Error::usage(format!("no benchmark `{name}`")))
}

fn peer(text: &str) -> Result<Peer> {
    match text.split_once('=') {
        Some((name @ ("firecracker" | "cloud-hypervisor" | "firecrest"), path)) => {
            Ok(Peer { name: name.to_owned(), path: path.to_owned() })
        }
        _ => Err(Error::usage(format!("--peer {text}: give NAME=PATH, with a NAME of --help"))),
    }
}
